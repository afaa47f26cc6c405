//! The transformer that both towers are made of: pre-norm blocks with QuickGELU.
//!
//! B batch, L tokens, D width, H heads

use base::{Init, Scope};
use nn::{LayerNorm, Linear};
use tch::Tensor;

use super::TowerConfig;

/// Epsilon of all norms.
pub(super) const EPS: f64 = 1e-5;

pub(super) fn linear(p: &Scope, name: &str, inputs: i64, outputs: i64, bias: bool) -> Linear {
    let init = Init::Normal { std: (inputs as f64).powf(-0.5) };
    Linear::new(&(p / name), inputs, outputs, init, bias.then_some(Init::Const(0.0)))
}

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
}

impl Block {
    fn new(p: &Scope, TowerConfig { width, heads, .. }: TowerConfig) -> Self {
        let (attention, mlp) = (p / "self_attn", p / "mlp");
        let square = |name: &str| linear(&attention, name, width, width, true);
        Block {
            norm1: LayerNorm::new(&(p / "layer_norm1"), width, EPS),
            q: square("q_proj"),
            k: square("k_proj"),
            v: square("v_proj"),
            out: square("out_proj"),
            norm2: LayerNorm::new(&(p / "layer_norm2"), width, EPS),
            fc1: linear(&mlp, "fc1", width, 4 * width, true),
            fc2: linear(&mlp, "fc2", 4 * width, width, true),
            heads,
        }
    }

    /// (B, L, D) → (B, L, D).
    fn forward(&self, x: &Tensor, causal: bool) -> Tensor {
        let x = x + self.attention(&self.norm1.forward(x), causal);
        let hidden = self.fc1.forward(&self.norm2.forward(&x));
        let quick_gelu = &hidden * (&hidden * 1.702).sigmoid();
        &x + self.fc2.forward(&quick_gelu)
    }

    fn attention(&self, x: &Tensor, causal: bool) -> Tensor {
        let (b, l, d) = x.size3().expect("attention takes (B, L, D)");
        let heads = |t: Tensor| t.view([b, l, self.heads, d / self.heads]).transpose(1, 2); // (B, H, L, D/H)
        let (q, k, v) = (heads(self.q.forward(x)), heads(self.k.forward(x)), heads(self.v.forward(x)));
        let y = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, causal, None, false);
        self.out.forward(&y.transpose(1, 2).reshape([b, l, d]))
    }
}

/// Blocks one after the other.
#[derive(Debug)]
pub(super) struct Encoder {
    blocks: Vec<Block>,
    causal: bool,
}

impl Encoder {
    /// Variables `encoder.layers.N.*` under `p`. In a causal encoder a token sees those before it
    /// only.
    pub fn new(p: &Scope, config: TowerConfig, causal: bool) -> Self {
        let layers = p / "encoder" / "layers";
        Encoder { blocks: (0..config.depth).map(|i| Block::new(&(&layers / i), config)).collect(), causal }
    }

    /// (B, L, D) → (B, L, D).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.blocks.iter().fold(x.shallow_clone(), |x, block| block.forward(&x, self.causal))
    }
}
