//! Peak signal-to-noise ratio.

use base::{Images, ImagesU8};
use tch::{Kind, Tensor};

use crate::{Error, Result};

/// PSNR in dB of each image, as GigaTok and LlamaGen publish it (`reconstruction_*_ddp.py` with scikit-image):
/// the reconstruction rounded to 8 bits, the original not, both in [0, 1], data range 1. Infinite where they
/// are equal.
pub fn psnr(reconstruction: &ImagesU8, original: &Images) -> Result<Vec<f64>> {
    let (a, b) = unit_range(reconstruction, original)?;
    let error = (a - b).square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double); // (B)
    Ok(to_vec(&(error.log10() * -10.0)))
}

/// Both as float64 (B, 3, H, W) in [0, 1]; each is first computed in fp32, as the official code does.
pub(crate) fn unit_range(reconstruction: &ImagesU8, original: &Images) -> Result<(Tensor, Tensor)> {
    let (a, b) = (reconstruction.tensor(), original.tensor());
    if a.size() != b.size() {
        return Err(Error::Shape { expected: b.size(), found: a.size() });
    }
    let a = a.to_kind(Kind::Float) / 255.0;
    let b = (b.to_kind(Kind::Float) + 1.0) / 2.0;
    Ok((a.to_kind(Kind::Double), b.to_kind(Kind::Double)))
}

pub(crate) fn to_vec(values: &Tensor) -> Vec<f64> {
    (0..values.size()[0]).map(|i| values.double_value(&[i])).collect()
}
