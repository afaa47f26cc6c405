//! A frozen vision network beside the CNN encoder ([`VisionConfig`]).

use backbones::resize::half_pixel_bilinear;
use backbones::{EfficientNetLite, EfficientNetTrunk, WeightSource, enlarged};
use base::Scope;
use nn::{LayerNorm, Linear};
use tch::Tensor;

use super::qformer::to_map;
use crate::bottleneck::to_tokens;
use crate::cnn::{WEIGHT, ZERO};
use crate::config::VisionConfig;
use crate::error::Result;

/// Frozen features of the image, normalised, projected to the CNN's channels.
#[derive(Debug)]
pub struct Vision {
    trunk: EfficientNetTrunk,
    norm: LayerNorm,
    proj: Linear,
    config: VisionConfig,
}

/// Under the root scope.
const TRUNK: &str = "vision";

impl Vision {
    /// Frozen variables under `vision`, trained ones under `vision_norm` and `vision_proj`.
    pub fn new(root: &Scope, config: VisionConfig, z_channels: i64) -> Self {
        let width = config.size.channels()[config.block];
        Vision {
            trunk: EfficientNetTrunk::new(&(root / TRUNK), config.size, config.block + 1),
            norm: LayerNorm::new(&(root / "vision_norm"), width, 1e-5),
            proj: Linear::new(&(root / "vision_proj"), width, z_channels, WEIGHT, Some(ZERO)),
            config,
        }
    }

    /// Reads the frozen weights.
    ///
    /// # Errors
    /// Returns an error if they cannot be read or are another network's.
    pub fn load(root: &Scope, config: VisionConfig, from: &WeightSource) -> Result<()> {
        Ok(EfficientNetTrunk::load(&(root / TRUNK), config.size, from)?)
    }

    /// (B, 3, H, W) in [-1, 1] → frozen features (B, C, grid, grid), and their projection (B, Z,
    /// grid, grid).
    pub fn forward(&self, images: &Tensor, grid: i64) -> (Tensor, Tensor) {
        let features = tch::no_grad(|| {
            let x = EfficientNetLite::scaled(&enlarged(images, self.config.upsample));
            let map = self.trunk.features(&x, &[self.config.block]).remove(0);
            half_pixel_bilinear(&map.contiguous(), grid, grid).to_kind(images.kind())
        });
        let projected = self.proj.forward(&self.norm.forward(&to_tokens(&features)));
        (features, to_map(&projected, grid, grid))
    }
}
