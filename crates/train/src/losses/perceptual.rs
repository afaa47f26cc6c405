//! Perceptual losses: distances of images by the features of a frozen network.

use backbones::{HeadDropout, Lpips};
use tch::{Kind, Tensor};

/// A distance of images by the features of a frozen network.
pub trait PerceptualLoss: std::fmt::Debug {
    /// Images (B, 3, H, W) in [-1, 1] → the mean distance over the batch, fp32, with a gradient for `image` only.
    fn distance(&self, target: &Tensor, image: &Tensor) -> Tensor;
}

/// LPIPS over VGG16, in fp32.
#[derive(Debug)]
pub struct LpipsLoss {
    /// The network.
    pub network: Lpips,
    /// Whether a training pass drops values, as the official trainers' does.
    pub dropout: HeadDropout,
}

impl PerceptualLoss for LpipsLoss {
    fn distance(&self, target: &Tensor, image: &Tensor) -> Tensor {
        self.network.forward_with(&target.detach(), image, self.dropout).mean(Kind::Float)
    }
}
