//! Peak signal-to-noise ratio.

use tch::Kind;

use crate::math::pixels::to_vec;
use crate::{PixelPair, Result};

/// PSNR in dB of each image, with data range 1: the mean error is over all pixels and channels.
/// Infinite where both are equal.
pub fn psnr(pair: &PixelPair) -> Result<Vec<f64>> {
    let error =
        (&pair.images - &pair.originals).square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double); // (B)
    to_vec(&(error.log10() * -10.0))
}
