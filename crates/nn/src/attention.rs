use libtorch_ext::fused;
use tch::Tensor;

use super::Linear;
use base::{Init, Scope};

/// `torch.nn.MultiheadAttention`, batch first: packed `in_proj_weight` (rows q, k, v),
/// `in_proj_bias`, `out_proj`.
///
/// B batch, L queries, S keys, D width, H heads, K = D / H head width
#[derive(Debug)]
pub struct MultiheadAttention {
    in_proj_weight: Tensor, // (3D, D)
    in_proj_bias: Tensor,   // (3D)
    out_proj: Linear,
    heads: i64,
    width: i64,
}

impl MultiheadAttention {
    /// `in_proj_weight` starts Xavier-uniform on its packed shape, as PyTorch's does; `out_proj`
    /// from `init`.
    pub fn new(p: &Scope, width: i64, heads: i64, init: Init) -> Self {
        MultiheadAttention {
            in_proj_weight: p.var("in_proj_weight", &[3 * width, width], Init::xavier(width, 3 * width)),
            in_proj_bias: p.var("in_proj_bias", &[3 * width], Init::Const(0.0)),
            out_proj: Linear::new(&(p / "out_proj"), width, width, init, Some(Init::Const(0.0))),
            heads,
            width,
        }
    }

    /// (B, L, D), (B, S, D), (B, S, D) → (B, L, D). Scale 1/sqrt(K), no mask.
    pub fn forward(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        let [q, k, v] = [self.project(query, 0), self.project(key, 1), self.project(value, 2)];
        let trained = [&q, &k, &v].into_iter().any(Tensor::requires_grad);
        if trained && fused::takes(&q) {
            return self.out_proj.forward(&fused::attention_of(&q, &k, &v, self.heads));
        }
        let [q, k, v] = [q, k, v].map(|x| self.split(&x));
        let y = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false); // (B, H, L, K)
        self.out_proj.forward(&y.transpose(1, 2).flatten(2, 3))
    }

    /// (B, S, D) → (B, H, S, K).
    fn split(&self, x: &Tensor) -> Tensor {
        let (b, s, d) = x.size3().expect("attention takes (B, S, D)");
        x.view([b, s, self.heads, d / self.heads]).transpose(1, 2)
    }

    /// (B, S, D) → (B, S, D) through the q, k or v rows.
    fn project(&self, x: &Tensor, part: i64) -> Tensor {
        let weight = self.in_proj_weight.narrow(0, part * self.width, self.width).to_kind(x.kind());
        let bias = self.in_proj_bias.narrow(0, part * self.width, self.width).to_kind(x.kind());
        x.linear(&weight, Some(bias))
    }
}
