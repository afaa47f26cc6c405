//! The quantizer between its two pointwise convolutions, as every family has it.
//!
//! B batch, Z CNN channels, N = h·w codes, D code width

use base::{Init, Scope};
use nn::Conv2d;
use tch::Tensor;

use crate::quantizer::{Quantizer, QuantizerConfig};

/// Map (B, Z, h, w) → tokens (B, N, D) → codes → tokens → map.
#[derive(Debug)]
pub struct Bottleneck {
    quant_conv: Conv2d,
    pub quantizer: Box<dyn Quantizer>,
    post_quant_conv: Conv2d,
}

impl Bottleneck {
    /// Variables under `p` with the official names. The convolutions start by PyTorch's default:
    /// the official initialisation has run when they are made.
    pub fn new(p: &Scope, z_channels: i64, config: &QuantizerConfig) -> Self {
        let quantizer = config.settings();
        let (z, d) = (z_channels, quantizer.code_dim());
        let pointwise = |p: Scope, inputs, outputs| {
            let init = Init::torch_default(inputs);
            Conv2d::new(&p, inputs, outputs, 1, init, init)
        };
        Bottleneck {
            quant_conv: pointwise(p / "quant_conv", z, d),
            quantizer: quantizer.build(&(p / "quantize")),
            post_quant_conv: pointwise(p / "post_quant_conv", d, z),
        }
    }

    /// (B, Z, h, w) → (B, N, D), the quantizer's input.
    pub fn project(&self, map: &Tensor) -> Tensor {
        to_tokens(&self.quant_conv.forward(map))
    }

    /// Code vectors as a map, (B, D, h, w) → (B, Z, h, w).
    pub fn expand(&self, map: &Tensor) -> Tensor {
        self.post_quant_conv.forward(map)
    }
}

/// (B, C, h, w) → (B, N, C), row-major.
pub fn to_tokens(map: &Tensor) -> Tensor {
    map.flatten(2, 3).transpose(1, 2)
}
