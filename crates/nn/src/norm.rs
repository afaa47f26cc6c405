use cuda_kernels::Norm;
use libtorch_ext::fused;
use tch::{Device, Kind, Tensor};

use super::{gpu_maps, maps};
use base::{Init, Scope};

/// Layer normalisation over the last axis, statistics in fp32.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Variables `weight` and `bias` (width).
    pub fn new(p: &Scope, width: i64, eps: f64) -> Self {
        LayerNorm {
            weight: p.var("weight", &[width], Init::Const(1.0)),
            bias: p.var("bias", &[width], Init::Const(0.0)),
            eps,
        }
    }

    /// The weight (width).
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias (width).
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// (…, width) → the same shape and dtype.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let weight = self.weight.to_kind(Kind::Float);
        let bias = self.bias.to_kind(Kind::Float);
        let width = self.weight.size();
        x.to_kind(Kind::Float).layer_norm(width, Some(weight), Some(bias), self.eps, false).to_kind(x.kind())
    }
}

/// Root-mean-square normalisation over the last axis: `x · rsqrt(mean(x²) + eps) · weight`,
/// statistics in fp32 (LlamaGen `gpt.py`).
#[derive(Debug)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// Variable `weight` (width).
    pub fn new(p: &Scope, width: i64, eps: f64) -> Self {
        RmsNorm { weight: p.var("weight", &[width], Init::Const(1.0)), eps }
    }

    /// The weight (width).
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// (…, width) → the same shape and dtype.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if fused::takes(x) {
            return fused::rms_norm(x, &self.weight, self.eps);
        }
        let f = x.to_kind(Kind::Float);
        let scale = (f.square().mean_dim([-1i64].as_slice(), true, Kind::Float) + self.eps).rsqrt();
        (f * scale).to_kind(x.kind()) * self.weight.to_kind(x.kind())
    }
}

/// Group normalisation with eps 1e-6 and an optional affine map, statistics in fp32.
#[derive(Debug)]
pub struct GroupNorm {
    affine: Option<(Tensor, Tensor)>,
    groups: i64,
}

impl GroupNorm {
    const EPS: f64 = 1e-6;

    /// Variables `weight` and `bias` (channels).
    pub fn new(p: &Scope, channels: i64, groups: i64) -> Self {
        let weight = p.var("weight", &[channels], Init::Const(1.0));
        let bias = p.var("bias", &[channels], Init::Const(0.0));
        GroupNorm { affine: Some((weight, bias)), groups }
    }

    /// No variables.
    pub fn plain(groups: i64) -> Self {
        GroupNorm { affine: None, groups }
    }

    /// (B, C, H, W) → the same shape and dtype. C must be a multiple of the groups.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.own(x, false)
    }

    /// `x · sigmoid(x)` of [`GroupNorm::forward`], in the same memory where no gradient needs
    /// both.
    pub fn silu(&self, x: &Tensor) -> Tensor {
        self.own(x, true)
    }

    fn own(&self, x: &Tensor, silu: bool) -> Tensor {
        let float = |t: &Tensor| t.to_kind(Kind::Float);
        let affine = self.affine.as_ref().map(|(w, b)| (float(w), float(b)));
        self.normalize(x, affine.as_ref().map(|(w, b)| (w, b)), silu)
    }

    /// `forward(x) · scale + shift` with (B, C) scale and shift instead of the layer's own.
    pub fn modulated(&self, x: &Tensor, scale: &Tensor, shift: &Tensor) -> Tensor {
        let flat = |t: &Tensor| t.to_kind(Kind::Float).view(-1);
        if x.size()[0] == 1 && !scale.requires_grad() {
            return self.normalize(x, Some((&flat(scale), &flat(shift))), false);
        }
        if x.device().is_cuda() {
            let float = |t: &Tensor| t.to_kind(Kind::Float).contiguous();
            let affine = Some((&float(scale), &float(shift)));
            let norm = Norm { groups: self.groups, eps: Self::EPS, affine, silu: false };
            if let Some(y) = gpu_maps::group_norm(x, &norm) {
                return y;
            }
        }
        let wide = |t: &Tensor| t.unsqueeze(-1).unsqueeze(-1); // (B, C, 1, 1)
        self.normalize(x, None, false) * wide(scale) + wide(shift)
    }

    /// `affine` is (C) each. Channels last on the CPU has a kernel of its own; libtorch's takes
    /// variances there as differences of squares, so it gets another order. In that one it reads
    /// and writes bf16 itself, with statistics in fp32; elsewhere the input is converted.
    fn normalize(&self, x: &Tensor, affine: Option<(&Tensor, &Tensor)>, silu: bool) -> Tensor {
        let trained = affine.is_some_and(|(w, b)| w.requires_grad() || b.requires_grad());
        if let Some(pixels) = maps::pixels(x).filter(|_| !trained) {
            return maps::group_norm(&pixels, self.groups, affine, Self::EPS, silu);
        }
        let on_gpu = Norm { groups: self.groups, eps: Self::EPS, affine, silu };
        if let Some(y) = gpu_maps::group_norm(x, &on_gpu) {
            return y;
        }
        let (weight, bias) = affine.unzip();
        let norm = |x: &Tensor| x.contiguous().group_norm(self.groups, weight, bias, Self::EPS, false);
        let mut y = match x.kind() {
            Kind::BFloat16 if x.device() == Device::Cpu && weight.is_some() && !x.requires_grad() => norm(x),
            kind => norm(&x.to_kind(Kind::Float)).to_kind(kind),
        };
        match silu {
            true if y.requires_grad() => y.silu(),
            true => y.silu_(),
            false => y,
        }
    }
}
