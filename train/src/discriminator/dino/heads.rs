//! Trained heads: a small convolutional network on each feature of the backbone, with spectral norm
//! and batch statistics of small groups.
//!
//! B batch, D width, P patches

use base::{Init, Mode, Scope};
use tch::{Kind, Tensor};

use crate::discriminator::leaky_relu;
use crate::discriminator::spectral::SpectralWeight;

/// Samples that share batch statistics.
pub(super) const GROUP: i64 = 8;

/// Features (B, D, P) → one logit a patch, (B, P).
#[derive(Debug)]
pub(super) struct Head {
    first: Block,
    second: Block,
    output: SpectralConv1d,
}

impl Head {
    pub(super) fn new(p: &Scope, width: i64, kernel: i64) -> Self {
        Head {
            first: Block::new(&(p / 0), width, 1),
            second: Block::new(&(p / 1 / "fn"), width, kernel),
            output: SpectralConv1d::new(&(p / 2), width, 1, 1),
        }
    }

    pub(super) fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let x = self.first.forward(x, mode);
        let x = (self.second.forward(&x, mode) + x) * std::f64::consts::FRAC_1_SQRT_2;
        self.output.forward(&x, mode).squeeze_dim(1)
    }
}

/// Convolution, norm, leaky ReLU.
#[derive(Debug)]
struct Block {
    conv: SpectralConv1d,
    norm: BatchNormLocal,
}

impl Block {
    fn new(p: &Scope, width: i64, kernel: i64) -> Self {
        Block {
            conv: SpectralConv1d::new(&(p / 0), width, width, kernel),
            norm: BatchNormLocal::new(&(p / 1), width),
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        leaky_relu(&self.norm.forward(&self.conv.forward(x, mode))).to_kind(x.kind())
    }
}

/// `torch.nn.Conv1d` with circular padding under spectral norm.
#[derive(Debug)]
struct SpectralConv1d {
    bias: Tensor,
    weight: SpectralWeight,
    padding: i64,
}

impl SpectralConv1d {
    fn new(p: &Scope, inputs: i64, outputs: i64, kernel: i64) -> Self {
        SpectralConv1d {
            bias: p.var("bias", &[outputs], Init::torch_default(inputs * kernel)),
            weight: SpectralWeight::new(p, &[outputs, inputs, kernel]),
            padding: kernel / 2,
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let weight = self.weight.normalized(mode);
        let padded = match self.padding {
            0 => x.shallow_clone(),
            n => x.pad([n, n], "circular", None),
        };
        padded.conv1d(&weight.to_kind(x.kind()), Some(self.bias.to_kind(x.kind())), 1, 0, 1, 1)
    }
}

/// Batch norm over consecutive groups of at most [`GROUP`] samples, all of one size; always with
/// the batch's statistics, in fp32, with an affine map.
#[derive(Debug)]
struct BatchNormLocal {
    weight: Tensor,
    bias: Tensor,
}

impl BatchNormLocal {
    const EPS: f64 = 1e-6;

    fn new(p: &Scope, width: i64) -> Self {
        BatchNormLocal {
            weight: p.var("weight", &[width], Init::Const(1.0)),
            bias: p.var("bias", &[width], Init::Const(0.0)),
        }
    }

    /// (B, D, P) → the same shape, fp32.
    fn forward(&self, x: &Tensor) -> Tensor {
        let (b, d, p) = x.size3().expect("heads take (B, D, P)");
        let groups = x.to_kind(Kind::Float).reshape([(b + GROUP - 1) / GROUP, -1, d, p]);
        let over = [1i64, 3];
        let mean = groups.mean_dim(over.as_slice(), true, Kind::Float);
        let var = groups.var_dim(over.as_slice(), false, true);
        let normal = (groups - mean) / (var + Self::EPS).sqrt();
        (normal * self.weight.view([1, 1, d, 1]) + self.bias.view([1, 1, d, 1])).view([b, d, p])
    }
}
