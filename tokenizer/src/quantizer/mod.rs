//! Vector quantisation.

mod vector;

use serde::{Deserialize, Serialize};
use tch::Tensor;

pub use vector::{VectorQuantizer, entropy_loss};

/// The codebook and how it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizerConfig {
    /// Number of codes.
    pub codebook_size: i64,
    /// Width of a code vector.
    pub code_dim: i64,
    /// Compare directions: vectors and codebook rows are normalised at every use.
    pub l2_normalize: bool,
    /// How the gradient passes the nearest-neighbour choice.
    pub gradient: Gradient,
    /// Weight of the commitment loss (beta).
    pub commitment: f64,
    /// Weight of the entropy loss; 0 switches it off.
    #[serde(default)]
    pub entropy: f64,
}

/// How the gradient passes the quantizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gradient {
    /// Copied unchanged.
    StraightThrough,
    /// Rotated and rescaled with the vector (arXiv 2410.06424).
    Rotation,
}

/// What the quantizer returns.
#[derive(Debug)]
pub struct Quantized {
    /// (B, N, D): the chosen code vectors, carrying the estimator's gradient. Under the rotation trick they
    /// differ from the codebook rows by up to 5e-6, in evaluation too.
    pub z: Tensor,
    /// (B, N) int64.
    pub codes: Tensor,
    /// Loss terms.
    pub losses: QuantizerLosses,
}

/// Loss terms of the quantizer, already weighted: the trainer adds them as they are.
#[derive(Debug)]
pub struct QuantizerLosses {
    /// Moves codes to vectors.
    pub codebook: Tensor,
    /// Moves vectors to codes, times the commitment weight.
    pub commitment: Tensor,
    /// Confident single choices, even use overall; `None` at weight 0.
    pub entropy: Option<Tensor>,
}
