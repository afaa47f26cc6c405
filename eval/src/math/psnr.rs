//! Peak signal-to-noise ratio.

use base::image;

use crate::math::pixels::to_vec;
use crate::{PixelPair, Result};

/// PSNR in dB of each image, with data range 1: the mean error is over all pixels and channels.
/// Infinite where both are equal.
pub fn psnr(pair: &PixelPair) -> Result<Vec<f64>> {
    to_vec(&image::psnr(&image::mse(&pair.images, &pair.originals)))
}
