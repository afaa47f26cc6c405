//! The vector quantizer of GigaTok and LlamaGen (official `VectorQuantizer`), in fp32 whatever
//! surrounds it.
//!
//! B batch, N codes of an image, M = B·N vectors, D code width, V codebook size

use base::carried::{self, Change};
use base::{Codes, Init, Mode, Scope};
use nn::{fused_choice, l2_normalize};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::interface::{Quantized, Quantizer, QuantizerLosses, QuantizerSettings};
use crate::error::{Error, Result};

/// Length of the queue of recent codes from which usage is read.
const USAGE_QUEUE: i64 = 65_536;
/// Temperature of the soft choices whose entropy is the loss.
const TEMPERATURE: f64 = 0.01;
/// Rows of the distance matrix held at once outside training.
const SEARCH_ROWS: i64 = 4096;

/// The codebook and how it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorQuantizerConfig {
    /// Number of codes.
    pub codebook_size: i64,
    /// Width of a code vector.
    pub code_dim: i64,
    /// Compare directions: vectors and codebook rows are normalised at every use.
    pub l2_normalize: bool,
    /// Gradient estimator of the nearest-neighbour choice.
    pub gradient: Gradient,
    /// Weight of the commitment loss (beta).
    pub commitment: f64,
    /// Weight of the entropy loss; 0 switches it off.
    #[serde(default)]
    pub entropy: f64,
}

impl QuantizerSettings for VectorQuantizerConfig {
    fn codebook_size(&self) -> i64 {
        self.codebook_size
    }

    fn code_dim(&self) -> i64 {
        self.code_dim
    }

    fn encode_flops(&self) -> f64 {
        2.0 * self.codebook_size as f64 * self.code_dim as f64
    }

    fn activation_bytes(&self) -> f64 {
        if self.entropy != 0.0 { 3.0 * 4.0 * self.codebook_size as f64 } else { 0.0 }
    }

    fn check(&self) -> Result<()> {
        let weights = [("commitment", self.commitment), ("entropy", self.entropy)];
        match weights.iter().find(|(_, w)| !(w.is_finite() && *w >= 0.0)) {
            Some((key, found)) => {
                Err(Error::Settings(format!("quantizer.{key} must be 0 or more, found {found}")))
            }
            None => Ok(()),
        }
    }

    fn build(&self, p: &Scope) -> Box<dyn Quantizer> {
        Box::new(VectorQuantizer::new(p, self))
    }
}

/// Gradient estimator of the nearest-neighbour choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gradient {
    /// Copied unchanged.
    StraightThrough,
    /// Rotated and rescaled with the vector (arXiv 2410.06424).
    Rotation,
}

/// Nearest-neighbour quantizer.
#[derive(Debug)]
pub struct VectorQuantizer {
    codebook: Tensor, // (V, D), not kept normalised
    used: Tensor,     // (65536,) most recent codes, newest last
    config: VectorQuantizerConfig,
}

impl VectorQuantizer {
    /// Variables `embedding.weight` (V, D) and the buffer `codebook_used` (65536).
    /// The codebook starts uniform in ±1/V, rows normalised if directions are compared.
    pub fn new(p: &Scope, config: &VectorQuantizerConfig) -> Self {
        let shape = [config.codebook_size, config.code_dim];
        let init = Init::Uniform { bound: 1.0 / config.codebook_size as f64 };
        let mut codebook = (p / "embedding").var_of("weight", &shape, Kind::Float, init);
        if config.l2_normalize && p.vars().is_random() {
            let _guard = tch::no_grad_guard();
            let normalized = l2_normalize(&codebook, 1);
            codebook.copy_(&normalized);
        }
        let used = p.buffer("codebook_used", &[USAGE_QUEUE], Kind::Float, Init::Const(0.0));
        VectorQuantizer { codebook, used, config: config.clone() }
    }

    /// Settings.
    pub fn config(&self) -> &VectorQuantizerConfig {
        &self.config
    }

    /// The codebook as it is compared: fp32, rows normalised if the configuration sets it.
    fn rows(&self) -> Tensor {
        self.maybe_normalize(&self.codebook)
    }

    fn maybe_normalize(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        if self.config.l2_normalize { l2_normalize(&x, -1) } else { x }
    }

    /// The nearest codes of vectors (M, D), (M), and the entropy loss where it counts.
    fn choose(&self, flat: &Tensor, rows: &Tensor) -> (Tensor, Option<Tensor>) {
        let counts = self.config.entropy != 0.0;
        if let Some((codes, loss)) = counts.then(|| fused_choice(flat, rows, TEMPERATURE)).flatten() {
            return (codes, Some(loss));
        }
        let distances = squared_distances(flat, rows); // (M, V)
        (distances.argmin(1, false), counts.then(|| entropy_loss(&-distances)))
    }
}

impl Quantizer for VectorQuantizer {
    /// The nearest codes, lowest index on a tie.
    fn encode(&self, z: &Tensor) -> Tensor {
        let (b, n, d) = z.size3().expect("the quantizer takes (B, N, D)");
        let rows = self.rows();
        let flat = self.maybe_normalize(z).reshape([b * n, d]);
        let chunks: Vec<Tensor> = flat
            .split(SEARCH_ROWS, 0)
            .iter()
            .map(|part| squared_distances(part, &rows).argmin(1, false))
            .collect();
        Tensor::cat(&chunks, 0).view([b, n])
    }

    fn lookup(&self, codes: &Codes) -> Tensor {
        let (b, n) = codes.tensor().size2().expect("codes are (B, N)");
        self.rows().index_select(0, &codes.tensor().view([-1])).view([b, n, -1])
    }

    fn forward(&self, z: &Tensor, mode: Mode) -> Quantized {
        let (b, n, d) = z.size3().expect("the quantizer takes (B, N, D)");
        let rows = self.rows(); // (V, D)
        let flat = self.maybe_normalize(z).reshape([b * n, d]); // (M, D)
        let (codes, entropy) = self.choose(&flat, &rows); // (M)
        let chosen = rows.index_select(0, &codes); // (M, D)
        if mode.is_train() {
            carried::change(&self.used, Change::Push(codes.shallow_clone()));
        }
        let distance = |a: &Tensor, b: &Tensor| (a - b).square().mean(Kind::Float);
        let losses = QuantizerLosses::default()
            .with("codebook", distance(&chosen, &flat.detach()))
            .with("commitment", distance(&chosen.detach(), &flat) * self.config.commitment);
        let losses = match entropy {
            Some(loss) => losses.with("entropy", loss * self.config.entropy),
            None => losses,
        };
        let out = match self.config.gradient {
            Gradient::StraightThrough => &flat + (&chosen - &flat).detach(),
            Gradient::Rotation => rotate(&flat, &chosen),
        };
        Quantized { z: out.view([b, n, d]).to_kind(z.kind()), codes: codes.view([b, n]), losses }
    }

    fn check_finite(&self) -> Result<()> {
        match bool::try_from(self.rows().isfinite().all())? {
            true => Ok(()),
            false => Err(Error::Settings(
                "the codebook holds numbers that are not finite (NaN or infinite)".into(),
            )),
        }
    }

    /// Over the most recent 65,536 codes. The queue starts with zeros, which count as code 0, as
    /// they do upstream.
    fn usage(&self) -> Option<f64> {
        let (distinct, _, _) = self.used.unique_dim(0, true, false, false);
        Some(distinct.size()[0] as f64 / self.config.codebook_size as f64)
    }
}

/// (M, D), (V, D) → (M, V): `|z|² + |e|² − 2 z·e`.
fn squared_distances(z: &Tensor, rows: &Tensor) -> Tensor {
    let norms = |x: &Tensor| x.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    norms(z).unsqueeze(1) + norms(rows) - z.matmul(&rows.transpose(0, 1)) * 2.0
}

/// The rotation trick: the rotation taking `z` to `q`, and their ratio of lengths, held constant
/// and applied to `z`, so that the gradient is rotated the same way (arXiv 2410.06424, section 4.2,
/// by two reflections).
fn rotate(z: &Tensor, q: &Tensor) -> Tensor {
    let norm = |x: &Tensor| x.norm_scalaropt_dim(2.0, [1i64], true); // (M, 1)
    let dot = |a: &Tensor, b: &Tensor| (a * b).sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
    let (z_norm, q_norm) = (norm(z), norm(q));
    let u = (z / (&z_norm + 1e-6)).detach();
    let p = (q / (&q_norm + 1e-6)).detach();
    let sum = &u + &p;
    let w = &sum / norm(&sum);
    let rotated = z - dot(z, &w) * 2.0 * &w + dot(z, &u) * 2.0 * &p;
    rotated * (&q_norm / (&z_norm + 1e-6)).detach()
}

/// Mean entropy of single choices minus entropy of the mean choice, at temperature 0.01
/// (official `compute_entropy_loss`; affinity = −squared distance, (M, V)).
pub fn entropy_loss(affinity: &Tensor) -> Tensor {
    let scaled = affinity / TEMPERATURE;
    let p = scaled.softmax(-1, Kind::Float);
    let log_p = (scaled + 1e-5).log_softmax(-1, Kind::Float);
    let sample = -(&p * log_p).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float).mean(Kind::Float);
    let mean = p.mean_dim([0i64].as_slice(), false, Kind::Float);
    let average = -(&mean * (&mean + 1e-5).log()).sum(Kind::Float);
    sample - average
}
