//! Sums of per-image figures for validation.

use base::Images;
use tch::{Kind, Tensor};

fn per_image(squares: &Tensor) -> Tensor {
    squares.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double)
}

/// Mean squared errors, summed over the batch.
pub(super) fn sum_of_means(a: &Images, b: &Images) -> f64 {
    per_image(&(a.tensor() - b.tensor()).square()).sum(Kind::Double).double_value(&[])
}

/// Peak signal-to-noise ratios of 8-bit images, summed over the batch.
pub(super) fn sum_of_psnr(a: &Tensor, b: &Tensor) -> f64 {
    let difference = (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)) / 255.0;
    (per_image(&difference.square()).clamp_min(1e-10).log10() * -10.0).sum(Kind::Double).double_value(&[])
}
