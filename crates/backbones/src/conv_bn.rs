//! Convolution and batch norm of a frozen network, as one convolution.

use std::sync::OnceLock;

use base::{Init, Scope};
use tch::{Kind, Tensor};

/// Padding of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Padding {
    /// Zeros on both sides: rows, columns.
    Fixed([i64; 2]),
    /// TensorFlow's SAME for the size at hand: `⌈side / stride⌉` outputs, an odd zero at the
    /// end.
    Same,
}

/// Sizes of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvShape {
    pub inputs: i64,
    pub outputs: i64,
    pub kernel: [i64; 2],
    pub stride: i64,
    pub groups: i64,
    pub padding: Padding,
}

/// Convolution without bias, then batch norm with the stored statistics (eps 1e-3).
#[derive(Debug)]
pub(crate) struct ConvBn {
    weight: Tensor,
    norm: [Tensor; 4], // weight, bias, mean, variance
    shape: ConvShape,
    folded: OnceLock<(Tensor, Tensor)>,
}

const EPS: f64 = 1e-3;

impl ConvBn {
    /// Variables `weight` under `conv`; `weight`, `bias`, `running_mean` and `running_var` under
    /// `bn`.
    pub fn new(conv: &Scope, bn: &Scope, shape: ConvShape) -> Self {
        let ConvShape { inputs, outputs, kernel, groups, .. } = shape;
        let init = Init::torch_default(inputs / groups * kernel[0] * kernel[1]);
        let statistic = |leaf: &str, c| bn.buffer(leaf, &[outputs], Kind::Float, Init::Const(c));
        let weight = conv.var("weight", &[outputs, inputs / groups, kernel[0], kernel[1]], init);
        let norm = [
            bn.var("weight", &[outputs], Init::Const(1.0)),
            bn.var("bias", &[outputs], Init::Const(0.0)),
            statistic("running_mean", 0.0),
            statistic("running_var", 1.0),
        ];
        ConvBn { weight, norm, shape, folded: OnceLock::new() }
    }

    /// Weight and bias of the equivalent convolution, computed in float64 at the first use.
    fn folded(&self) -> &(Tensor, Tensor) {
        self.folded.get_or_init(|| {
            let kind = self.weight.kind();
            let [gamma, beta, mean, variance] = self.norm.each_ref().map(|t| t.to_kind(Kind::Double));
            let scale = gamma / (variance + EPS).sqrt();
            let weight = self.weight.to_kind(Kind::Double) * scale.view([-1, 1, 1, 1]);
            let bias = beta - mean * scale;
            (channels_last(&weight.to_kind(kind)), bias.to_kind(kind))
        })
    }

    /// (B, inputs, H, W) → (B, outputs, H', W'), without activation.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = self.folded();
        let (weight, bias) = (weight.to_kind(x.kind()), bias.to_kind(x.kind()));
        let ConvShape { stride, groups, .. } = self.shape;
        let (padded, padding) = self.pad(x);
        if groups > 1 && stride > 1 && x.requires_grad() {
            // On a CPU the gradient of a strided depthwise convolution takes ten times as long as
            // that of all places.
            let all = padded.conv2d(&weight, Some(bias), 1, padding, 1, groups);
            return all.slice(2, 0, None, stride).slice(3, 0, None, stride);
        }
        padded.conv2d(&weight, Some(bias), stride, padding, 1, groups)
    }

    /// The input with the zeros that a convolution cannot add itself, and those that it can.
    fn pad(&self, x: &Tensor) -> (Tensor, [i64; 2]) {
        let ConvShape { kernel, stride, padding, .. } = self.shape;
        if let Padding::Fixed(padding) = padding {
            return (x.shallow_clone(), padding);
        }
        let total =
            |side: i64, kernel: i64| ((((side + stride - 1) / stride) - 1) * stride + kernel - side).max(0);
        let (_, _, h, w) = x.size4().expect("feature maps are (B, C, H, W)");
        let (rows, columns) = (total(h, kernel[0]), total(w, kernel[1]));
        if rows % 2 == 0 && columns % 2 == 0 {
            return (x.shallow_clone(), [rows / 2, columns / 2]);
        }
        let ends = [columns / 2, columns - columns / 2, rows / 2, rows - rows / 2];
        (x.constant_pad_nd(ends), [0, 0])
    }
}

/// Values with the channels of a place adjacent in memory, the fast layout of convolutions on a
/// CPU.
pub(crate) fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}
