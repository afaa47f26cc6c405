use std::sync::OnceLock;

use cpu_kernels::Winograd;
use libtorch_ext::bytes::f32_values;
use tch::{Device, Kind, Tensor};

use super::maps;
use base::{Init, Scope};

/// Pixels from which on Winograd's filtering pays for its larger weights.
const MANY_PIXELS: i64 = 32 * 32;

/// A square two-dimensional convolution with bias, weight cast to the input's dtype.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
    /// There once the weights stay as they are; filled when it is first needed.
    packed: Option<OnceLock<Winograd>>,
}

impl Conv2d {
    /// Stride 1, same padding; variables `weight` (out, in, k, k) and `bias` (out).
    pub fn new(p: &Scope, inputs: i64, outputs: i64, kernel: i64, weight: Init, bias: Init) -> Self {
        Conv2d {
            weight: p.var("weight", &[outputs, inputs, kernel, kernel], weight),
            bias: Some(p.var("bias", &[outputs], bias)),
            stride: 1,
            padding: kernel / 2,
            packed: None,
        }
    }

    /// The same convolution with another stride and padding.
    pub fn with_stride(self, stride: i64, padding: i64) -> Self {
        Conv2d { stride, padding, ..self }
    }

    /// A convolution without bias (for layers followed by a batch norm).
    pub fn without_bias(p: &Scope, inputs: i64, outputs: i64, kernel: i64, weight: Init) -> Self {
        let weight = p.var("weight", &[outputs, inputs, kernel, kernel], weight);
        Conv2d { weight, bias: None, stride: 1, padding: kernel / 2, packed: None }
    }

    /// Promises that the weights stay as they are, so that a form of them for inference on the CPU
    /// may be kept: four times as large, for 3×3 convolutions of large maps alone.
    pub fn pack(&mut self) {
        let size: Vec<usize> = self.weight.size().iter().map(|&n| n as usize).collect();
        let same = self.stride == 1 && self.padding == 1 && size[2..] == [3, 3] && self.bias.is_some();
        if self.weight.device() == Device::Cpu && same && Winograd::fits(size[1], size[0]) {
            self.packed = Some(OnceLock::new());
        }
    }

    /// (B, in, H, W) → (B, out, H', W').
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.packed_forward(x, None).unwrap_or_else(|| self.plain_forward(x))
    }

    /// `forward(x) + residual`.
    pub fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        let plain = || super::add_into(self.plain_forward(x), residual);
        self.packed_forward(x, Some(residual)).unwrap_or_else(plain)
    }

    fn packed_forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Option<Tensor> {
        let place = self.packed.as_ref().filter(|_| x.size()[2] * x.size()[3] >= MANY_PIXELS)?;
        let trained = self.weight.requires_grad() || residual.is_some_and(Tensor::requires_grad);
        let slower = x.kind() == Kind::BFloat16 && cpu_kernels::has_amx_bf16();
        let pixels = maps::pixels(x).filter(|_| !trained && !slower)?;
        let packed = place.get_or_init(|| {
            let bias = self.bias.as_ref().expect("packed convolutions have a bias");
            Winograd::new(&f32_values(&self.weight), &f32_values(bias), maps::isa())
        });
        Some(maps::convolution(packed, &pixels, self.weight.size()[0], residual))
    }

    fn plain_forward(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        let bias = self.bias.as_ref().map(|b| b.to_kind(kind));
        x.conv2d(&self.weight.to_kind(kind), bias, self.stride, self.padding, 1, 1)
    }

    /// Whether the weights are channels last; maps then have that order, too.
    pub fn is_channels_last(&self) -> bool {
        !self.weight.is_contiguous() && self.weight.permute([0, 2, 3, 1]).is_contiguous()
    }

    /// The weight, (out, in, k, k).
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, (out).
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}
