//! The transformers between grid and latent tokens (official `ViTEncoder`, `ViTDecoder` and their
//! 2-D kin).
//!
//! B batch, P = h·w grid positions, N latent tokens, Z channels at the CNN, W width

use base::{Init, Scope};
use nn::{Conv2d, LayerNorm, Linear, MultiheadAttention};
use tch::Tensor;

use super::query_init;
use crate::bottleneck::to_tokens;
use crate::cnn::{WEIGHT, ZERO};
use crate::config::{GigaTokConfig, GridLayers, Latent, QueryInit};
use crate::error::Result;
use crate::sizes::TransformerSize;

const EPS: f64 = 1e-5;

fn linear(p: Scope, inputs: i64, outputs: i64) -> Linear {
    Linear::new(&p, inputs, outputs, WEIGHT, Some(ZERO))
}

/// A learned table stored (L, 1, W) and used as (1, L, W).
fn positions(p: &Scope, name: &str, length: i64, width: i64) -> Tensor {
    p.var(name, &[length, 1, width], Init::Normal { std: (width as f64).powf(-0.5) })
}

fn add(x: &Tensor, table: &Tensor) -> Tensor {
    x + table.to_kind(x.kind()).transpose(0, 1)
}

/// (B, P, C) → (B, C, h, w), contiguous: libtorch's group norm is less exact on channels-last
/// maps, which is what the bare transposition would hand to the CNN.
pub(crate) fn to_map(tokens: &Tensor, height: i64, width: i64) -> Tensor {
    let (b, _, c) = tokens.size3().expect("tokens are (B, P, C)");
    tokens.transpose(1, 2).contiguous().view([b, c, height, width])
}

/// `linear2(GELU(linear1(x)))`, four times as wide inside.
#[derive(Debug)]
struct Mlp {
    linear1: Linear,
    linear2: Linear,
}

impl Mlp {
    fn new(p: &Scope, width: i64) -> Self {
        Mlp {
            linear1: linear(p / "linear1", width, 4 * width),
            linear2: linear(p / "linear2", 4 * width, width),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.linear2.forward(&self.linear1.forward(x).gelu("none"))
    }
}

/// Pre-norm self-attention, cross-attention and MLP. Positions are added to queries and keys in
/// every layer, never to values; the memory is not normalised (official `TransformerDecoderLayer`).
#[derive(Debug)]
struct QFormerLayer {
    norm1: LayerNorm,
    self_attn: MultiheadAttention,
    norm2: LayerNorm,
    multihead_attn: MultiheadAttention,
    norm3: LayerNorm,
    mlp: Mlp,
}

impl QFormerLayer {
    fn new(p: &Scope, width: i64, heads: i64) -> Self {
        QFormerLayer {
            norm1: LayerNorm::new(&(p / "norm1"), width, EPS),
            self_attn: MultiheadAttention::new(&(p / "self_attn"), width, heads, WEIGHT),
            norm2: LayerNorm::new(&(p / "norm2"), width, EPS),
            multihead_attn: MultiheadAttention::new(&(p / "multihead_attn"), width, heads, WEIGHT),
            norm3: LayerNorm::new(&(p / "norm3"), width, EPS),
            mlp: Mlp::new(p, width),
        }
    }

    /// `keys` is the memory with its positions already added.
    fn forward(&self, t: &Tensor, query_pos: &Tensor, keys: &Tensor, memory: &Tensor) -> Tensor {
        let a = self.norm1.forward(t);
        let qk = add(&a, query_pos);
        let t = t + self.self_attn.forward(&qk, &qk, &a);
        let b = add(&self.norm2.forward(&t), query_pos);
        let t = &t + self.multihead_attn.forward(&b, keys, memory);
        &t + self.mlp.forward(&self.norm3.forward(&t))
    }
}

/// Pre-norm self-attention and MLP (official `TransformerLayer`).
#[derive(Debug)]
struct StandardLayer {
    norm1: LayerNorm,
    self_attn: MultiheadAttention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl StandardLayer {
    fn new(p: &Scope, width: i64, heads: i64) -> Self {
        StandardLayer {
            norm1: LayerNorm::new(&(p / "norm1"), width, EPS),
            self_attn: MultiheadAttention::new(&(p / "self_attn"), width, heads, WEIGHT),
            norm2: LayerNorm::new(&(p / "norm2"), width, EPS),
            mlp: Mlp::new(p, width),
        }
    }

    fn forward(&self, t: &Tensor) -> Tensor {
        let a = self.norm1.forward(t);
        let t = t + self.self_attn.forward(&a, &a, &a);
        &t + self.mlp.forward(&self.norm2.forward(&t))
    }
}

fn stack<L>(p: &Scope, size: TransformerSize, layer: impl Fn(&Scope, i64, i64) -> L) -> Vec<L> {
    (0..size.layers).map(|i| layer(&(p / "transformer" / i), size.width, size.heads)).collect()
}

/// The layers of a 2-D transformer.
#[derive(Debug)]
enum GridStack {
    Standard(Vec<StandardLayer>),
    Qformer(Vec<QFormerLayer>),
}

impl GridStack {
    fn new(p: &Scope, size: TransformerSize, layers: GridLayers) -> Self {
        match layers {
            GridLayers::Standard => GridStack::Standard(stack(p, size, StandardLayer::new)),
            GridLayers::Qformer => GridStack::Qformer(stack(p, size, QFormerLayer::new)),
        }
    }

    /// (B, P, W) → (B, P, W), and the output of layer `tap` (1-based) if asked for.
    fn forward(&self, x: Tensor, pos: &Tensor, tap: Option<i64>) -> (Tensor, Option<Tensor>) {
        match self {
            GridStack::Standard(layers) => run(layers, add(&x, pos), tap, |layer, x| layer.forward(x)),
            // The memory is the layer's own input, un-normed.
            GridStack::Qformer(layers) => {
                run(layers, x, tap, |layer, x| layer.forward(x, pos, &add(x, pos), x))
            }
        }
    }
}

fn run<L>(
    layers: &[L],
    x: Tensor,
    tap: Option<i64>,
    step: impl Fn(&L, &Tensor) -> Tensor,
) -> (Tensor, Option<Tensor>) {
    let mut tapped = None;
    let mut x = x;
    for (i, layer) in layers.iter().enumerate() {
        x = step(layer, &x);
        if tap == Some(i as i64 + 1) {
            tapped = Some(x.shallow_clone());
        }
    }
    (x, tapped)
}

/// Initial queries of the 1-D encoder.
#[derive(Debug)]
enum Queries {
    MultiLevel(Vec<(i64, i64)>, Linear),
    Mean(Linear),
    Learned(Tensor), // (N, 1, W)
}

/// The body of the encoder: what differs between 1-D and 2-D.
#[derive(Debug)]
enum EncoderBody {
    Sequence { layers: Vec<QFormerLayer>, latent_pos: Tensor, queries: Queries, num_tokens: i64 },
    Grid(GridStack),
}

/// CNN features → latent features: 2-D → 1-D by a Q-Former (`s2to1encoder`), or 2-D → 2-D
/// (`s2dencoder`).
#[derive(Debug)]
pub struct Encoder {
    ln_pre: LayerNorm,
    embed: Linear,
    pos: Tensor, // (P, 1, W)
    body: EncoderBody,
    ln_post: LayerNorm,
    conv_out: Conv2d,
    grid: i64,
}

impl Encoder {
    /// Variables under the root scope's official prefix.
    pub fn new(root: &Scope, config: &GigaTokConfig) -> Result<Self> {
        let size = config.encoder.resolve();
        let (grid, z, w) = (config.grid(), config.cnn.z_channels, size.width);
        let p = &match config.latent {
            Latent::Sequence { .. } => root / "s2to1encoder",
            Latent::Grid { .. } => root / "s2dencoder",
        };
        let body = match config.latent {
            Latent::Sequence { num_tokens, query_init } => EncoderBody::Sequence {
                layers: stack(p, size, QFormerLayer::new),
                latent_pos: positions(p, "latent_token_positional_embedding", num_tokens, w),
                queries: Queries::new(p, grid, num_tokens, w, query_init)?,
                num_tokens,
            },
            Latent::Grid { layers } => EncoderBody::Grid(GridStack::new(p, size, layers)),
        };
        Ok(Encoder {
            ln_pre: LayerNorm::new(&(p / "ln_pre"), z, EPS),
            embed: linear(p / "encoder_embed", z, w),
            pos: positions(p, "positional_embedding", grid * grid, w),
            body,
            ln_post: LayerNorm::new(&(p / "ln_post"), w, EPS),
            conv_out: Conv2d::new(&(p / "conv_out"), w, z, 1, WEIGHT, ZERO),
            grid,
        })
    }

    /// (B, Z, h, w) → (B, Z, 1, N) or (B, Z, h, w), and the features after `ln_post`, (B, N, W).
    pub fn forward(&self, map: &Tensor) -> (Tensor, Tensor) {
        let x = self.embed.forward(&self.ln_pre.forward(&to_tokens(map))); // (B, P, W)
        let (tokens, height, width) = match &self.body {
            EncoderBody::Sequence { layers, latent_pos, queries, num_tokens } => {
                let keys = add(&x, &self.pos);
                let start = queries.start(&x, self.grid, *num_tokens); // (B, N, W)
                let step = |layer: &QFormerLayer, t: &Tensor| layer.forward(t, latent_pos, &keys, &x);
                (run(layers, start, None, step).0, 1, *num_tokens)
            }
            EncoderBody::Grid(stack) => (stack.forward(x, &self.pos, None).0, self.grid, self.grid),
        };
        let features = self.ln_post.forward(&tokens);
        (self.conv_out.forward(&to_map(&features, height, width)), features)
    }
}

impl Queries {
    fn new(p: &Scope, grid: i64, num_tokens: i64, width: i64, how: QueryInit) -> Result<Self> {
        let global_proj = || linear(p / "global_proj", width, width);
        Ok(match how {
            QueryInit::MultiLevel => {
                Queries::MultiLevel(query_init::kernels(grid, num_tokens)?, global_proj())
            }
            QueryInit::Mean => Queries::Mean(global_proj()),
            QueryInit::Learned => Queries::Learned(positions(p, "query_1d", num_tokens, width)),
        })
    }

    fn start(&self, x: &Tensor, grid: i64, num_tokens: i64) -> Tensor {
        let (b, _, w) = x.size3().expect("grid tokens are (B, P, W)");
        match self {
            Queries::MultiLevel(kernels, proj) => proj.forward(&query_init::pool(x, grid, kernels)),
            Queries::Mean(proj) => {
                let mean = x.mean_dim([1i64].as_slice(), true, x.kind()); // (B, 1, W)
                proj.forward(&mean).expand([b, num_tokens, w], false)
            }
            Queries::Learned(table) => {
                table.to_kind(x.kind()).transpose(0, 1).expand([b, num_tokens, w], false)
            }
        }
    }
}

/// The body of the decoder.
#[derive(Debug)]
enum DecoderBody {
    Sequence { layers: Vec<QFormerLayer>, latent_pos: Tensor },
    Grid(GridStack),
}

/// Latent features → grid features for the CNN (`s1to2decoder` or `s2ddecoder`), with the
/// training-only projection of an early layer onto the semantic teacher.
#[derive(Debug)]
pub struct Decoder {
    ln_pre: LayerNorm,
    embed: Linear,
    pos: Tensor, // (P, 1, W)
    body: DecoderBody,
    alignment: Option<(i64, AlignmentMlp)>,
    ln_post: LayerNorm,
    conv_out: Conv2d,
    grid: i64,
}

impl Decoder {
    /// Variables under the root scope's official prefix.
    pub fn new(root: &Scope, config: &GigaTokConfig) -> Self {
        let size = config.decoder.resolve();
        let (grid, z, w) = (config.grid(), config.cnn.z_channels, size.width);
        let p = &match config.latent {
            Latent::Sequence { .. } => root / "s1to2decoder",
            Latent::Grid { .. } => root / "s2ddecoder",
        };
        let body = match config.latent {
            Latent::Sequence { num_tokens, .. } => DecoderBody::Sequence {
                layers: stack(p, size, QFormerLayer::new),
                latent_pos: positions(p, "latent_token_positional_embedding", num_tokens, w),
            },
            Latent::Grid { layers } => DecoderBody::Grid(GridStack::new(p, size, layers)),
        };
        let alignment = config.alignment.and_then(|a| {
            let layer = a.decoder_layer()?;
            Some((layer, AlignmentMlp::new(&(p / "distill_mlp"), w, a.width)))
        });
        Decoder {
            ln_pre: LayerNorm::new(&(p / "ln_pre"), z, EPS),
            embed: linear(p / "decoder_embed", z, w),
            pos: positions(p, "positional_embedding", grid * grid, w),
            body,
            alignment,
            ln_post: LayerNorm::new(&(p / "ln_post"), w, EPS),
            conv_out: Conv2d::new(&(p / "conv_out"), w, z, 3, WEIGHT, ZERO),
            grid,
        }
    }

    /// (B, N, Z) → (B, Z, h, w), and the aligned layer's output (B, P, W) where there is one.
    pub fn forward(&self, latents: &Tensor) -> (Tensor, Option<Tensor>) {
        let x = self.embed.forward(&self.ln_pre.forward(latents)); // (B, N, W)
        let tap = self.alignment.as_ref().map(|(layer, _)| *layer);
        let (tokens, tapped) = match &self.body {
            DecoderBody::Sequence { layers, latent_pos } => {
                let (b, _, w) = x.size3().expect("latent tokens are (B, N, W)");
                let keys = add(&x, latent_pos);
                // Every grid query starts as the first latent token (the code and the supplement
                // agree; a comment upstream names the mean).
                let start = x.narrow(1, 0, 1).expand([b, self.grid * self.grid, w], false);
                run(layers, start, tap, |layer, t| layer.forward(t, &self.pos, &keys, &x))
            }
            DecoderBody::Grid(stack) => stack.forward(x, &self.pos, tap),
        };
        let map = to_map(&self.ln_post.forward(&tokens), self.grid, self.grid);
        (self.conv_out.forward(&map), tapped)
    }

    /// (B, P, W) of the aligned layer → (B, P, teacher width).
    pub fn align(&self, tapped: &Tensor) -> Option<Tensor> {
        self.alignment.as_ref().map(|(_, mlp)| mlp.forward(tapped))
    }
}

/// The projection onto the teacher (`distill_mlp`): linear, SiLU, linear, SiLU, linear.
#[derive(Debug)]
pub struct AlignmentMlp([Linear; 3]);

impl AlignmentMlp {
    /// Variables `0`, `2` and `4`.
    pub fn new(p: &Scope, width: i64, out: i64) -> Self {
        AlignmentMlp([
            linear(p / 0, width, 4 * width),
            linear(p / 2, 4 * width, 4 * width),
            linear(p / 4, 4 * width, out),
        ])
    }

    /// (B, P, W) → (B, P, teacher width).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let [first, second, third] = &self.0;
        third.forward(&second.forward(&first.forward(x).silu()).silu())
    }
}
