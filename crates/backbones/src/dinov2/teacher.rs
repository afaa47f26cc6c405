//! DINOv2 as GigaTok's teacher.

use std::path::Path;

use base::Images;
use tch::{Device, Kind, Tensor};
use weights::TensorSource;

use super::{DinoConfig, DinoV2, Positions, normalized};
use crate::Result;
use crate::resize::half_pixel_bicubic;
use crate::source;

/// GigaTok's teacher of semantic regularisation: DINOv2 with its positions resampled once, with antialias, to the
/// 16×16 patches of a 224-pixel image, which is normalised first and resized second, without antialias.
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
    /// Names or shapes are not exactly those of `config`.
    pub fn load(source: &dyn TensorSource, config: &DinoConfig, device: Device) -> Result<Self> {
        let config = DinoConfig { positions: Positions::Antialiased, ..config.clone() };
        let net = DinoV2::load(source, &config, device)?;
        let side = Self::SIDE / config.patch;
        let positions = net.positions(side, side);
        Ok(DinoTeacher { net, positions })
    }

    /// [`DinoTeacher::load`] from a weight file.
    ///
    /// # Errors
    /// The file cannot be read, or as [`DinoTeacher::load`].
    pub fn open(path: &Path, config: &DinoConfig, device: Device) -> Result<Self> {
        Self::load(source::open("DINOv2", path)?.as_ref(), config, device)
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
