//! Distance of images by the features of EfficientNet-Lite: at several depths, features scaled to
//! unit length over channels and their squared distance, as in LPIPS (Zhang et al., arXiv
//! 1801.03924) without its learned heads.

use base::Precision;
use nn::l2_normalize;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::files::weights_folder;
use crate::resize::half_pixel_bilinear;
use crate::{EfficientNetLite, EfficientNetSize, Error, FeatureId, Network, Result, WeightSource};

/// Settings of the distance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerceptualConfig {
    /// The network.
    #[serde(default = "lite0")]
    pub size: EfficientNetSize,
    /// Its weights; the public file in the weights folder (`gen fetch`) where none are given.
    #[serde(default)]
    pub weights: Option<WeightSource>,
    /// Images are enlarged bilinearly by this factor first.
    #[serde(default = "one")]
    pub upsample: i64,
    /// The blocks whose outputs are compared, from 0, ascending.
    #[serde(default = "five_depths")]
    pub blocks: Vec<usize>,
    /// Weight of each block's distance in the sum; the mean of all where none are given.
    #[serde(default)]
    pub block_weights: Option<Vec<f64>>,
    /// Weight of the divergence of the class distributions, KL(target ‖ image) in nats, added to
    /// the blocks' distance. A tokenizer's loss on a classifier's verdict is usual since TiTok (Yu
    /// et al., arXiv 2406.07550).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub logits: f64,
}

fn is_zero(weight: &f64) -> bool {
    *weight == 0.0
}

fn lite0() -> EfficientNetSize {
    EfficientNetSize::Lite0
}

fn one() -> i64 {
    1
}

/// The last block before each halving of the side, and one at the depth between.
fn five_depths() -> Vec<usize> {
    vec![0, 2, 4, 7, 10]
}

impl Default for PerceptualConfig {
    fn default() -> Self {
        PerceptualConfig {
            size: lite0(),
            weights: None,
            upsample: one(),
            blocks: five_depths(),
            block_weights: None,
            logits: 0.0,
        }
    }
}

impl PerceptualConfig {
    /// Refuses blocks that the network does not have, and weights that do not fit them.
    ///
    /// # Errors
    /// Returns an error if the settings are not valid.
    pub fn check(&self) -> Result<()> {
        self.size.check(&self.blocks, self.upsample)?;
        if let Some(weights) = &self.block_weights
            && (weights.len() != self.blocks.len() || weights.iter().any(|w| !(w.is_finite() && *w >= 0.0)))
        {
            return Err(Error::Input {
                what: "the weights of a perceptual distance's blocks",
                expected: format!("{} weights of at least 0", self.blocks.len()),
                found: format!("{weights:?}"),
            });
        }
        if !(self.logits.is_finite() && self.logits >= 0.0) {
            return Err(Error::Input {
                what: "the weight of a perceptual distance's logits",
                expected: "a number of at least 0".into(),
                found: self.logits.to_string(),
            });
        }
        Ok(())
    }

    /// FLOPs of one pass over a square image, and the values that its backward pass needs.
    pub fn cost(&self, side: i64) -> (f64, f64) {
        let side = side * self.upsample;
        if self.logits == 0.0 {
            self.size.cost(side, self.blocks.last().copied().unwrap_or(0))
        } else {
            self.size.cost_with_head(side)
        }
    }
}

/// The weights of an EfficientNet-Lite: those that were asked for, else the public file in the
/// weights folder.
///
/// # Errors
/// Returns an error if the public file is needed and missing, or another file has its name.
pub fn efficientnet_weights(asked: Option<&WeightSource>, size: EfficientNetSize) -> Result<WeightSource> {
    Network::EfficientNetLite(size).weights(asked, &weights_folder(None))
}

/// The distance, with its network.
#[derive(Debug)]
pub struct PerceptualDistance {
    network: EfficientNetLite,
    config: PerceptualConfig,
}

impl PerceptualDistance {
    /// Reads the network's weights. Features are computed in `precision`, distances in fp32.
    ///
    /// # Errors
    /// Returns an error if the settings contradict each other, or the weights cannot be read.
    pub fn open(config: &PerceptualConfig, device: Device, precision: Precision) -> Result<Self> {
        Ok(Self::open_with_id(config, device, precision)?.0)
    }

    /// [`PerceptualDistance::open`] with the identity of the values.
    ///
    /// # Errors
    /// Returns an error as [`PerceptualDistance::open`] does.
    pub fn open_with_id(
        config: &PerceptualConfig,
        device: Device,
        precision: Precision,
    ) -> Result<(Self, FeatureId)> {
        config.check()?;
        let PerceptualConfig { size, weights, upsample, blocks, block_weights, logits } = config;
        let weights = efficientnet_weights(weights.as_ref(), *size)?;
        let (network, provenance) = EfficientNetLite::open_named(&weights, *size, device, precision)?;
        let blocks: Vec<String> = blocks.iter().map(usize::to_string).collect();
        let weighted = block_weights.as_ref().map(|w| format!(", weights {w:?}")).unwrap_or_default();
        let classes = if *logits == 0.0 { String::new() } else { format!(", {logits} × logits") };
        let id = FeatureId {
            network: size.name().into(),
            weights_sha256: provenance.sha256,
            input_path: if *upsample == 1 { "stored".into() } else { format!("enlarged {upsample} times") },
            layer: format!("blocks {}{weighted}{classes}", blocks.join(", ")),
            comparable: provenance.comparable,
        };
        Ok((PerceptualDistance { network, config: config.clone() }, id))
    }

    /// Outputs of the blocks, and the logits where they have a weight.
    fn taps(&self, images: &Tensor) -> (Vec<Tensor>, Option<Tensor>) {
        let x = EfficientNetLite::scaled(&enlarged(images, self.config.upsample));
        let blocks = &self.config.blocks;
        if self.config.logits == 0.0 {
            return (self.network.features(&x, blocks), None);
        }
        let mut maps = vec![];
        let out = self.network.forward_visiting(&x, |map| maps.push(map.shallow_clone()));
        // The stem's output comes first.
        (blocks.iter().map(|block| maps[block + 1].shallow_clone()).collect(), Some(out.logits))
    }

    /// (B, 3, H, W) twice, in [-1, 1] → the distance of each pair (B), fp32; of each block from 0
    /// to 4, of the logits from 0. Differentiable in `image` only.
    pub fn distance(&self, target: &Tensor, image: &Tensor) -> Tensor {
        let (wanted, wanted_logits) = tch::no_grad(|| self.taps(target));
        let (found, found_logits) = self.taps(image);
        let each: Vec<Tensor> = wanted.iter().zip(&found).map(|(a, b)| unit_distance(a, b)).collect();
        let each = Tensor::stack(&each, 1); // (B, blocks)
        let blocks = match &self.config.block_weights {
            Some(weights) => {
                let weights = Tensor::from_slice(weights).to_kind(Kind::Float).to_device(each.device());
                (each * weights).sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
            }
            None => each.mean_dim([1i64].as_slice(), false, Kind::Float),
        };
        match wanted_logits.zip(found_logits) {
            Some((wanted, found)) => blocks + class_divergence(&wanted, &found) * self.config.logits,
            None => blocks,
        }
    }
}

/// Logits (B, classes) twice → KL(target ‖ image) of their distributions (B), nats, fp32.
fn class_divergence(target: &Tensor, image: &Tensor) -> Tensor {
    let [wanted, found] = [target, image].map(|logits| logits.log_softmax(-1, Kind::Float));
    (wanted.exp() * (wanted - found)).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
}

/// Images enlarged by a whole factor.
pub fn enlarged(images: &Tensor, factor: i64) -> Tensor {
    if factor == 1 {
        return images.shallow_clone();
    }
    let size = images.size();
    half_pixel_bilinear(images, size[2] * factor, size[3] * factor)
}

/// Maps (B, C, H, W) → (B): squared distance of the channels at unit length, mean over places,
/// fp32.
pub fn unit_distance(a: &Tensor, b: &Tensor) -> Tensor {
    let unit = |map: &Tensor| l2_normalize(&map.to_kind(Kind::Float), 1);
    let squares = (unit(a) - unit(b)).square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    squares.mean_dim([1i64, 2].as_slice(), false, Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(config: PerceptualConfig) -> PerceptualDistance {
        let config = PerceptualConfig { weights: Some(WeightSource::Random { seed: 5 }), ..config };
        PerceptualDistance::open(&config, Device::Cpu, Precision::Fp32).unwrap()
    }

    fn images(seed: i64) -> Tensor {
        tch::manual_seed(seed);
        Tensor::rand([2, 3, 32, 32], (Kind::Float, Device::Cpu)) * 2.0 - 1.0
    }

    #[test]
    fn equal_images_are_at_distance_zero_and_weights_weigh() {
        let (a, b) = (images(1), images(2));
        let mean = random(PerceptualConfig::default());
        assert_eq!(mean.distance(&a, &a).abs().max().double_value(&[]), 0.0);
        let even = PerceptualConfig { block_weights: Some(vec![0.2; 5]), ..Default::default() };
        assert!(random(even).distance(&a, &b).allclose(&mean.distance(&a, &b), 1e-5, 1e-7, false));
        let first =
            PerceptualConfig { block_weights: Some(vec![1.0, 0.0, 0.0, 0.0, 0.0]), ..Default::default() };
        let alone = PerceptualConfig { blocks: vec![0], ..Default::default() };
        assert!(random(first).distance(&a, &b).allclose(&random(alone).distance(&a, &b), 1e-5, 1e-7, false));
    }

    /// Along a direction, the gradient equals the difference quotient.
    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let loss = random(PerceptualConfig { upsample: 2, blocks: vec![0, 4], ..Default::default() });
        let (a, b, step) = (images(1), images(2).set_requires_grad(true), images(3));
        loss.distance(&a, &b).sum(Kind::Float).backward();
        let slope = (b.grad() * &step).sum(Kind::Double).double_value(&[]);
        let at = |t: f64| {
            tch::no_grad(|| loss.distance(&a, &(&b + &step * t)).sum(Kind::Double)).double_value(&[])
        };
        let quotient = (at(1e-3) - at(-1e-3)) / 2e-3;
        assert!((slope - quotient).abs() < 0.02 * slope.abs().max(0.01), "{slope} {quotient}");
    }

    #[test]
    fn logits_add_the_divergence_of_the_class_distributions() {
        let blocks = PerceptualConfig { upsample: 2, blocks: vec![0, 4], ..Default::default() };
        let with = random(PerceptualConfig { logits: 0.5, ..blocks.clone() });
        let (a, b) = (images(1), images(2));
        assert_eq!(with.distance(&a, &a).abs().max().double_value(&[]), 0.0);
        let logits = |x: &Tensor| {
            let scaled = EfficientNetLite::scaled(&enlarged(x, 2));
            with.network.forward(&scaled).logits.log_softmax(-1, Kind::Float)
        };
        let divergence = logits(&b).kl_div(&logits(&a), tch::Reduction::Sum, true) / 2.0;
        let added = (with.distance(&a, &b) - random(blocks).distance(&a, &b)).mean(Kind::Float);
        assert!(added.allclose(&(divergence * 0.5), 1e-4, 1e-6, false));
        // Its gradient is the difference of the distributions.
        let (wanted, found) = (images(4).view([6, 1024]), images(5).view([6, 1024]).set_requires_grad(true));
        class_divergence(&wanted, &found).sum(Kind::Float).backward();
        let difference = found.softmax(-1, Kind::Float) - wanted.softmax(-1, Kind::Float);
        assert!(found.grad().allclose(&difference, 1e-4, 1e-8, false));
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        let check = |config: PerceptualConfig| config.check().unwrap_err().to_string();
        let e = check(PerceptualConfig { blocks: vec![4, 16], ..Default::default() });
        assert!(e.contains("0 to 15") && e.contains("[4, 16]"), "{e}");
        let e = check(PerceptualConfig { block_weights: Some(vec![1.0]), ..Default::default() });
        assert!(e.contains("5 weights"), "{e}");
        let e = check(PerceptualConfig { logits: f64::NAN, ..Default::default() });
        assert!(e.contains("logits") && e.contains("NaN"), "{e}");
    }
}
