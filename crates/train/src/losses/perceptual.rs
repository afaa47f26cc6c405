//! Perceptual losses: distances of images by the features of a frozen network.

use backbones::{FeatureCnn, HeadDropout, Lpips, PerceptualDistance, unit_distance};
use base::Mode;
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

impl PerceptualLoss for PerceptualDistance {
    fn distance(&self, target: &Tensor, image: &Tensor) -> Tensor {
        PerceptualDistance::distance(self, target, image).mean(Kind::Float)
    }
}

/// A feature network of one's own: at every stage, features scaled to unit length over channels (as in LPIPS) and
/// their squared distance, from 0 to 4; mean over pixels, images and stages. In the kind that the network was opened
/// with, but for the distances, which are fp32.
#[derive(Debug)]
pub struct FeatureLoss {
    /// The network.
    pub network: FeatureCnn,
    /// Kind of its weights and activations.
    pub kind: Kind,
}

impl PerceptualLoss for FeatureLoss {
    fn distance(&self, target: &Tensor, image: &Tensor) -> Tensor {
        let wanted = tch::no_grad(|| self.network.features(&target.to_kind(self.kind), Mode::Eval));
        let found = self.network.features(&image.to_kind(self.kind), Mode::Eval);
        let stages: Vec<Tensor> = wanted.iter().zip(&found).map(|(a, b)| unit_distance(a, b)).collect();
        Tensor::stack(&stages, 0).mean(Kind::Float)
    }
}
