//! Perceptual losses: distances of images by the features of a frozen network.

use backbones::{FeatureCnn, HeadDropout, Lpips, PerceptualDistance, unit_distance};
use base::Mode;
use libtorch_ext::random;
use tch::{Device, Kind, Tensor};

/// A distance of images by the features of a frozen network.
pub trait PerceptualLoss: std::fmt::Debug {
    /// Images (B, 3, H, W) in [-1, 1] → the mean distance over the batch, fp32, with a gradient
    /// for `image` only.
    fn distance(&self, target: &Tensor, image: &Tensor) -> Tensor;
}

/// LPIPS over VGG16, in fp32.
#[derive(Debug)]
pub struct LpipsLoss {
    /// The network.
    pub network: Lpips,
    /// Whether a training pass drops values, as in the official trainers.
    pub dropout: HeadDropout,
}

impl PerceptualLoss for LpipsLoss {
    fn distance(&self, target: &Tensor, image: &Tensor) -> Tensor {
        self.network.forward_with(&target.detach(), image, self.dropout).mean(Kind::Float)
    }
}

/// EfficientNet-Lite at several depths.
#[derive(Debug)]
pub struct EfficientNetLoss {
    /// The distance.
    pub network: PerceptualDistance,
    /// Largest random shift of both images in each pass and direction, pixels. A strided network
    /// has different weights for even and odd pixels, and its gradient contains a checkerboard
    /// pattern, which the shifts average out.
    pub shift: i64,
}

impl PerceptualLoss for EfficientNetLoss {
    fn distance(&self, target: &Tensor, image: &Tensor) -> Tensor {
        let [rows, columns] = [(); 2].map(|()| draw_up_to(self.shift));
        let shifted = |x: &Tensor| {
            let (_, _, h, w) = x.size4().expect("images are (B, 3, H, W)");
            x.narrow(2, rows, h - rows).narrow(3, columns, w - columns)
        };
        self.network.distance(&shifted(target), &shifted(image)).mean(Kind::Float)
    }
}

/// A uniform random integer from 0 to `most`.
fn draw_up_to(most: i64) -> i64 {
    if most == 0 {
        return 0;
    }
    let unit = random::uniform(&[1], (Kind::Float, Device::Cpu)).double_value(&[0]);
    ((unit * (most + 1) as f64) as i64).min(most)
}

/// A network trained by `gen train-features`: at every stage, features scaled to unit length over
/// channels (as in LPIPS) and their squared distance, from 0 to 4; mean over pixels, images and
/// stages. Computed in the network's dtype, distances in fp32.
#[derive(Debug)]
pub struct FeatureLoss {
    /// The network.
    pub network: FeatureCnn,
    /// Dtype of its weights and activations.
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

#[cfg(test)]
mod tests {
    use super::*;
    use backbones::{PerceptualConfig, WeightSource};
    use base::Precision;

    #[test]
    fn a_shift_shows_the_network_another_part_of_both_images_in_each_pass() {
        let weights = Some(WeightSource::Random { seed: 3 });
        let config = PerceptualConfig { weights, blocks: vec![0, 2], ..Default::default() };
        let loss = |shift| {
            let network = PerceptualDistance::open(&config, Device::Cpu, Precision::Fp32).unwrap();
            EfficientNetLoss { network, shift }
        };
        let draw = |seed| {
            tch::manual_seed(seed);
            Tensor::rand([2, 3, 32, 32], (Kind::Float, Device::Cpu)) * 2.0 - 1.0
        };
        let (target, image) = (draw(1), draw(2));
        let distances = |loss: &EfficientNetLoss| -> Vec<f64> {
            random::seeded(Device::Cpu, 5, || {
                (0..6).map(|_| loss.distance(&target, &image).double_value(&[])).collect()
            })
        };
        let still = distances(&loss(0));
        assert!(still.iter().all(|d| *d == still[0]), "{still:?}");
        let shifted = distances(&loss(3));
        assert!(shifted.iter().any(|d| *d != still[0]) && shifted[0] != shifted[1], "{shifted:?}");
        assert_eq!(shifted, distances(&loss(3)), "the same seed gives the same shifts");
        // All are distances of the crops that the shifts leave.
        let network = loss(0).network;
        let crop = |t: &Tensor, r: i64, c: i64| t.narrow(2, r, 32 - r).narrow(3, c, 32 - c);
        let possible: Vec<f64> = (0..16)
            .map(|i| network.distance(&crop(&target, i / 4, i % 4), &crop(&image, i / 4, i % 4)))
            .map(|d| d.mean(Kind::Float).double_value(&[]))
            .collect();
        assert!(
            shifted.iter().all(|d| possible.iter().any(|p| (p - d).abs() < 1e-5)),
            "{shifted:?} {possible:?}"
        );
    }
}
