use tch::Tensor;

use crate::vars::{Init, Scope};

/// A square two-dimensional convolution with bias, weight cast to the input's kind.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// Stride 1, same padding; variables `weight` (out, in, k, k) and `bias` (out).
    pub fn new(p: &Scope, inputs: i64, outputs: i64, kernel: i64, weight: Init, bias: Init) -> Self {
        Conv2d {
            weight: p.var("weight", &[outputs, inputs, kernel, kernel], weight),
            bias: Some(p.var("bias", &[outputs], bias)),
            stride: 1,
            padding: kernel / 2,
        }
    }

    /// The same convolution with another stride and padding.
    pub fn with_stride(self, stride: i64, padding: i64) -> Self {
        Conv2d { stride, padding, ..self }
    }

    /// A convolution without bias (for layers followed by a batch norm).
    pub fn without_bias(p: &Scope, inputs: i64, outputs: i64, kernel: i64, weight: Init) -> Self {
        let weight = p.var("weight", &[outputs, inputs, kernel, kernel], weight);
        Conv2d { weight, bias: None, stride: 1, padding: kernel / 2 }
    }

    /// (B, in, H, W) → (B, out, H', W').
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        let bias = self.bias.as_ref().map(|b| b.to_kind(kind));
        x.conv2d(&self.weight.to_kind(kind), bias, self.stride, self.padding, 1, 1)
    }

    /// The weight, for the adaptive discriminator weight.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}
