//! Distances of images.

use tch::{Kind, Tensor};

/// Mean squared error of each image over channels and pixels: (B, C, H, W) twice → (B) fp64.
pub fn mse(a: &Tensor, b: &Tensor) -> Tensor {
    (a - b).square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double)
}

/// Peak signal-to-noise ratio in dB of mean squared errors of images with data range 1; infinite
/// for an error of 0.
pub fn psnr(mse: &Tensor) -> Tensor {
    mse.log10() * -10.0
}
