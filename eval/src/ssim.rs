//! Structural similarity (Wang et al., 2004) with scikit-image's defaults: a uniform window of 7x7, sample
//! covariance, K1 = 0.01, K2 = 0.03, borders of 3 pixels left out, mean over pixels and then channels.

use base::{Images, ImagesU8};
use tch::{Kind, Tensor};

use crate::psnr::{to_vec, unit_range};
use crate::{Error, Result};

const WINDOW: i64 = 7;

/// The `L` in SSIM's constants `(K1 L)^2` and `(K2 L)^2`. The images themselves are in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataRange {
    /// 1: right for images in [0, 1].
    Unit,
    /// 2: what GigaTok's and LlamaGen's evaluation passes. It makes the constants four times too large and
    /// SSIM a little higher; the published numbers are of this kind.
    Published,
}

impl DataRange {
    fn value(self) -> f64 {
        match self {
            DataRange::Unit => 1.0,
            DataRange::Published => 2.0,
        }
    }
}

/// SSIM of each image: the reconstruction rounded to 8 bits, the original not. Computed in float64.
pub fn ssim(reconstruction: &ImagesU8, original: &Images, range: DataRange) -> Result<Vec<f64>> {
    let (a, b) = unit_range(reconstruction, original)?;
    let size = a.size();
    if size[2] < WINDOW || size[3] < WINDOW {
        return Err(Error::TooSmall { metric: "SSIM", window: WINDOW, height: size[2], width: size[3] });
    }
    let (c1, c2) = ((0.01 * range.value()).powi(2), (0.03 * range.value()).powi(2));
    let n = (WINDOW * WINDOW) as f64;
    let unbiased = n / (n - 1.0);
    let (ma, mb) = (window_mean(&a), window_mean(&b));
    let var_a = (window_mean(&(&a * &a)) - &ma * &ma) * unbiased;
    let var_b = (window_mean(&(&b * &b)) - &mb * &mb) * unbiased;
    let cov = (window_mean(&(&a * &b)) - &ma * &mb) * unbiased;
    let structure = (&ma * &mb * 2.0 + c1) * (cov * 2.0 + c2);
    let energy = (&ma * &ma + &mb * &mb + c1) * (var_a + var_b + c2);
    Ok(to_vec(&(structure / energy).mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double)))
}

/// Mean over each window that lies inside the image: (B, 3, H, W) → (B, 3, H - 6, W - 6).
fn window_mean(x: &Tensor) -> Tensor {
    x.avg_pool2d([WINDOW, WINDOW], [1, 1], [0, 0], false, true, None)
}
