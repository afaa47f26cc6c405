//! Structural similarity (Wang et al., 2004). Public tools differ in window, covariance and data
//! range: see [`Window`] and [`DataRange`]. Borders that a window would reach across are left out;
//! mean over pixels, then channels. Computed in float64.

use tch::{Kind, Tensor};

use crate::math::pixels::to_vec;
use crate::{Error, PixelPair, Result};

/// The `L` in SSIM's constants `(K1 L)^2` and `(K2 L)^2`, K1 = 0.01, K2 = 0.03. The images
/// themselves are in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataRange {
    /// 1: right for images in [0, 1].
    Unit,
    /// 2: what GigaTok's and LlamaGen's evaluation passes. It makes the constants four times too
    /// large and SSIM a little higher; the published numbers are of this kind.
    Published,
}

impl DataRange {
    fn value(self) -> f64 {
        match self {
            DataRange::Unit => 1.0,
            DataRange::Published => 2.0,
        }
    }

    /// `(K1 L)^2` and `(K2 L)^2`.
    fn constants(self) -> (f64, f64) {
        ((0.01 * self.value()).powi(2), (0.03 * self.value()).powi(2))
    }
}

/// Window of local means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// 7 × 7 pixels alike, sample covariance: scikit-image's default.
    Uniform,
    /// A Gaussian of σ = 1.5 on 11 × 11 pixels, population covariance: the paper's.
    Gaussian,
}

impl Window {
    /// Its side in pixels.
    pub fn side(self) -> i64 {
        match self {
            Window::Uniform => 7,
            Window::Gaussian => 11,
        }
    }

    /// Factor from the population's covariance to the one of this window.
    fn correction(self) -> f64 {
        let n = (self.side() * self.side()) as f64;
        if self == Window::Uniform { n / (n - 1.0) } else { 1.0 }
    }

    /// Means over each window inside the image: (B, 3, H, W) → (B, 3, H - side + 1, W -
    /// side + 1).
    fn means(self, x: &Tensor) -> Tensor {
        let side = self.side();
        if self == Window::Uniform {
            return x.avg_pool2d([side, side], [1, 1], [0, 0], false, true, None);
        }
        const SIGMA: f64 = 1.5;
        let at = Tensor::arange(side, (Kind::Double, tch::Device::Cpu)) - (side / 2) as f64;
        let weights = (at.square() / (-2.0 * SIGMA * SIGMA)).exp();
        let weights = &weights / weights.sum(Kind::Double);
        let (b, c, h, w) = x.size4().expect("batches of images");
        let planes = x.reshape([b * c, 1, h, w]);
        let rows = planes.conv2d(&weights.view([1, 1, side, 1]), None::<Tensor>, 1, 0, 1, 1);
        let both = rows.conv2d(&weights.view([1, 1, 1, side]), None::<Tensor>, 1, 0, 1, 1);
        both.view([b, c, h - side + 1, w - side + 1])
    }
}

/// SSIM of each image.
pub fn ssim(pair: &PixelPair, range: DataRange, window: Window) -> Result<Vec<f64>> {
    to_vec(&ssim_map(pair, range, window)?.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double))
}

/// SSIM at every place of the window: (B, 3, H - side + 1, W - side + 1).
pub fn ssim_map(pair: &PixelPair, range: DataRange, window: Window) -> Result<Tensor> {
    let LocalMoments { ma, mb, var_a, var_b, cov } =
        LocalMoments::new("SSIM", &pair.images, &pair.originals, window)?;
    let (c1, c2) = range.constants();
    let structure = (&ma * &mb * 2.0 + c1) * (cov * 2.0 + c2);
    let energy = (&ma * &ma + &mb * &mb + c1) * (var_a + var_b + c2);
    Ok(structure / energy)
}

/// The two factors of SSIM at every place of the window, (B, 3, H - side + 1, W - side + 1) each:
/// luminance, and contrast and structure together.
pub(crate) fn ssim_factors(
    metric: &'static str,
    images: &Tensor,
    originals: &Tensor,
    window: Window,
) -> Result<[Tensor; 2]> {
    let LocalMoments { ma, mb, var_a, var_b, cov } = LocalMoments::new(metric, images, originals, window)?;
    let (c1, c2) = DataRange::Unit.constants();
    let luminance = (&ma * &mb * 2.0 + c1) / (&ma * &ma + &mb * &mb + c1);
    Ok([luminance, (cov * 2.0 + c2) / (var_a + var_b + c2)])
}

/// Means, variances and covariance of a pair under a window.
struct LocalMoments {
    ma: Tensor,
    mb: Tensor,
    var_a: Tensor,
    var_b: Tensor,
    cov: Tensor,
}

impl LocalMoments {
    fn new(metric: &'static str, a: &Tensor, b: &Tensor, window: Window) -> Result<Self> {
        let (size, side) = (a.size(), window.side());
        if size[2] < side || size[3] < side {
            return Err(Error::TooSmall { metric, window: side, height: size[2], width: size[3] });
        }
        let correction = window.correction();
        let (ma, mb) = (window.means(a), window.means(b));
        let var_a = (window.means(&(a * a)) - &ma * &ma) * correction;
        let var_b = (window.means(&(b * b)) - &mb * &mb) * correction;
        let cov = (window.means(&(a * b)) - &ma * &mb) * correction;
        Ok(LocalMoments { ma, mb, var_a, var_b, cov })
    }
}
