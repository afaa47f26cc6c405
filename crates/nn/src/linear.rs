use libtorch_ext::fused;
use tch::Tensor;

use base::{Init, Scope};

/// `y = x Wᵀ + b`, with the weight cast to the input's dtype, so that fp32 masters serve bf16
/// activations.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Variables `weight` (out, in) and, if `bias` is given, `bias` (out).
    pub fn new(p: &Scope, inputs: i64, outputs: i64, weight: Init, bias: Option<Init>) -> Self {
        Linear {
            weight: p.var("weight", &[outputs, inputs], weight),
            bias: bias.map(|init| p.var("bias", &[outputs], init)),
        }
    }

    /// The weight (out, in).
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// (…, in) → (…, out).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        let trained = x.requires_grad() || self.weight.requires_grad();
        if trained && self.weight.kind() == kind && fused::takes_linear(x) {
            return fused::linear(x, &self.weight, self.bias.as_ref());
        }
        x.linear(&self.weight.to_kind(kind), self.bias.as_ref().map(|b| b.to_kind(kind)))
    }
}
