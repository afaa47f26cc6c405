//! Layers shared by the tokenizers and the transformers, with PyTorch's parameter names.

mod attention;
mod batch_norm;
mod conv;
mod gpu_maps;
mod linear;
mod maps;
mod norm;

pub use attention::MultiheadAttention;
pub use batch_norm::BatchNorm2d;
pub use conv::Conv2d;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm, RmsNorm};

use libtorch_ext::fused;
use tch::{Kind, Tensor};

use base::random;

/// Values with the channels of a pixel adjacent in memory, still (B, C, H, W): the CPU's
/// convolutions are up to one and a half times as fast, and keep the order, as a GPU's do in half
/// precision.
pub fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// `a + b`, into `a`'s memory where no gradient needs it.
pub fn add_into(mut a: Tensor, b: &Tensor) -> Tensor {
    if a.requires_grad() || b.requires_grad() { a + b } else { a.g_add_(b) }
}

/// Rows divided by their Euclidean norm along `dim`, as `torch.nn.functional.normalize` (eps
/// 1e-12).
pub fn l2_normalize(x: &Tensor, dim: i64) -> Tensor {
    let norm = x.norm_scalaropt_dim(2.0, [dim], true);
    x / norm.clamp_min(1e-12)
}

/// In one pass, where there is one for such vectors: the nearest of `codes` (V, D) to each of
/// `vectors` (M, D), and the entropy loss of [`fused::choice`].
pub fn fused_choice(vectors: &Tensor, codes: &Tensor, temperature: f64) -> Option<(Tensor, Tensor)> {
    fused::takes_choice(vectors).then(|| fused::choice(vectors, codes, temperature))
}

/// Dropout in training, the identity otherwise.
pub fn dropout(x: &Tensor, p: f64, train: bool) -> Tensor {
    if train && p > 0.0 { random::dropout(x, p) } else { x.shallow_clone() }
}

/// `x + dropout(a)` in training, `x + a` otherwise.
pub fn add_dropped(x: &Tensor, a: &Tensor, p: f64, train: bool) -> Tensor {
    if train && p > 0.0 && fused::takes(a) {
        return fused::add_dropped(x, a, p, random::draw_seed().cast_signed());
    }
    x + dropout(a, p, train)
}

/// `silu(gate) · up`.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Tensor {
    if fused::takes(gate) { fused::swiglu(gate, up) } else { gate.silu() * up }
}

/// Stochastic depth: in training, drops whole samples of a residual branch with probability `p`
/// (timm's `drop_path`, scaled by the keep probability).
pub fn drop_path(x: &Tensor, p: f64, train: bool) -> Tensor {
    if !train || p == 0.0 {
        return x.shallow_clone();
    }
    let keep = 1.0 - p;
    let mut shape = vec![1; x.dim()];
    shape[0] = x.size()[0];
    let mask = random::uniform(&shape, (Kind::Float, x.device())).lt(keep).to_kind(x.kind());
    x * mask / keep
}
