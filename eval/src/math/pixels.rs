//! Two batches of images in [0, 1], float64, as the pixel metrics compare them.

use base::{Images, ImagesU8};
use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Images judged and their originals: (B, 3, H, W) each.
#[derive(Debug)]
pub struct PixelPair {
    pub(crate) images: Tensor,
    pub(crate) originals: Tensor,
}

impl PixelPair {
    /// Both as files hold them.
    pub fn stored(images: &ImagesU8, originals: &ImagesU8) -> Result<Self> {
        let unit = |x: &ImagesU8| x.tensor().to_kind(Kind::Double) / 255.0;
        PixelPair::of(unit(images), unit(originals))
    }

    /// A pair as GigaTok's and LlamaGen's scripts compare it (`reconstruction_*_ddp.py`): the image
    /// judged rounded to 8 bits, the original not, both first computed in fp32.
    pub fn published(images: &ImagesU8, originals: &Images) -> Result<Self> {
        let images = images.tensor().to_kind(Kind::Float) / 255.0;
        let originals = (originals.tensor().to_kind(Kind::Float) + 1.0) / 2.0;
        PixelPair::of(images.to_kind(Kind::Double), originals.to_kind(Kind::Double))
    }

    /// Both in fp32 first, as where 8-bit values were divided by 255 in that precision.
    pub fn single_precision(images: &ImagesU8, originals: &ImagesU8) -> Result<Self> {
        let unit = |x: &ImagesU8| (x.tensor().to_kind(Kind::Float) / 255.0).to_kind(Kind::Double);
        PixelPair::of(unit(images), unit(originals))
    }

    fn of(images: Tensor, originals: Tensor) -> Result<Self> {
        if images.size() != originals.size() {
            return Err(Error::Shape { expected: originals.size(), found: images.size() });
        }
        Ok(PixelPair { images, originals })
    }
}

/// A float64 (B) as numbers.
pub(crate) fn to_vec(values: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::<f64>::try_from(values)?)
}
