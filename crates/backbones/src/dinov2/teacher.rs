//! DINOv2 as GigaTok's teacher.

use base::Images;
use tch::{Device, Kind, Tensor};
use weights::TensorSource;

use super::{DinoConfig, DinoV2, Positions, normalized};
use crate::resize::half_pixel_bicubic;
use crate::{Result, WeightSource};

/// GigaTok's teacher of semantic regularisation: DINOv2 with its positions resampled once, with
/// antialias, to the 16×16 patches of a 224-pixel image, which is normalised first and resized
/// second, without antialias.
#[derive(Debug)]
pub struct DinoTeacher {
    net: DinoV2,
    positions: Tensor, // (1, 1 + 16·16, D)
}

impl DinoTeacher {
    /// The side of what the network sees.
    const SIDE: i64 = 224;

    /// The published teacher is ViT-B/14 without registers.
    ///
    /// # Errors
    /// Returns an error if names or shapes are not exactly those of `config`.
    pub fn load(source: &dyn TensorSource, config: &DinoConfig, device: Device) -> Result<Self> {
        Ok(Self::new(DinoV2::load(source, &Self::resampled(config), device)?))
    }

    /// [`DinoTeacher::load`] from a weight file, or at random.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, and as [`DinoTeacher::load`] does.
    pub fn open(from: &WeightSource, config: &DinoConfig, device: Device) -> Result<Self> {
        Ok(Self::new(DinoV2::open(from, &Self::resampled(config), device)?))
    }

    fn resampled(config: &DinoConfig) -> DinoConfig {
        DinoConfig { positions: Positions::Antialiased, ..config.clone() }
    }

    fn new(net: DinoV2) -> Self {
        let side = Self::SIDE / net.config.patch;
        let positions = net.positions(side, side);
        DinoTeacher { net, positions }
    }

    /// D.
    pub fn width(&self) -> i64 {
        self.net.config.width
    }

    /// The positions in use, (1, 1 + h·w, D).
    pub fn positions(&self) -> &Tensor {
        &self.positions
    }

    /// Images of any size in [-1, 1] → (B, 3, 224, 224).
    pub fn prepare(&self, images: &Images) -> Tensor {
        let unit = (images.tensor().to_kind(Kind::Float) + 1.0) / 2.0;
        half_pixel_bicubic(&normalized(&unit), Self::SIDE, Self::SIDE)
    }

    /// The patch tokens after the final norm, (B, 256, D) fp32, without gradient.
    pub fn patches(&self, images: &Images) -> Tensor {
        tch::no_grad(|| {
            let x = self.net.embed(&self.prepare(images), &self.positions);
            self.net.tokens(&self.net.blocks.iter().fold(x, |x, block| block.forward(&x))).patches
        })
    }
}
