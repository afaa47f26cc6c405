use tch::{Kind, Tensor};

use base::Mode;
use base::carried::{self, Change};
use base::{Init, Scope};

/// `torch.nn.BatchNorm2d`: batch statistics in training, running ones (momentum 0.1) otherwise; eps
/// 1e-5, fp32, local to the process.
#[derive(Debug)]
pub struct BatchNorm2d {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor,
}

impl BatchNorm2d {
    const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    /// Variables `weight` and `bias` (channels); buffers `running_mean`, `running_var`,
    /// `num_batches_tracked`.
    pub fn new(p: &Scope, channels: i64, weight: Init) -> Self {
        BatchNorm2d {
            weight: p.var("weight", &[channels], weight),
            bias: p.var("bias", &[channels], Init::Const(0.0)),
            running_mean: p.buffer("running_mean", &[channels], Kind::Float, Init::Const(0.0)),
            running_var: p.buffer("running_var", &[channels], Kind::Float, Init::Const(1.0)),
            num_batches_tracked: p.buffer("num_batches_tracked", &[], Kind::Int64, Init::Const(0.0)),
        }
    }

    /// (B, C, H, W) → the same shape and dtype. Training records the batch's statistics.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        if !mode.is_train() {
            return self.normalized(x, (&self.running_mean, &self.running_var), mode);
        }
        // With a momentum of 1 the batch's own statistics are what is recorded.
        let (mean, var) = (self.running_mean.zeros_like(), self.running_var.zeros_like());
        let y = self.normalized(x, (&mean, &var), mode);
        carried::change(&self.running_mean, Change::Blend(mean, Self::MOMENTUM));
        carried::change(&self.running_var, Change::Blend(var, Self::MOMENTUM));
        carried::change(&self.num_batches_tracked, Change::Add(self.num_batches_tracked.ones_like()));
        y
    }

    fn normalized(&self, x: &Tensor, (mean, var): (&Tensor, &Tensor), mode: Mode) -> Tensor {
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        let wide = x.to_kind(Kind::Float);
        let y = wide.batch_norm(weight, bias, Some(mean), Some(var), mode.is_train(), 1.0, Self::EPS, false);
        y.to_kind(x.kind())
    }

    /// Affine map of each channel in evaluation, `x · scale + shift`, both (C) fp32.
    pub fn affine(&self) -> (Tensor, Tensor) {
        let scale = self.weight.to_kind(Kind::Float) * (&self.running_var + Self::EPS).rsqrt();
        let shift = self.bias.to_kind(Kind::Float) - &self.running_mean * &scale;
        (scale, shift)
    }
}
