//! Training a tokenizer: reconstruction, quantizer and feature losses for the model, hinge losses against a PatchGAN.

use std::path::Path;

use base::config::{Document, to_yaml};
use base::{Build, Images, Mode, Vars};
use data::Loader;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tokenizer::{Model, Tokenizer, TokenizerConfig};

use super::images;
use crate::discriminator::{PatchGan, PatchGanConfig};
use crate::losses::{adversarial, reconstruction};
use crate::recipe::{ImageData, Intervals, Optimization, with_overrides};
use crate::state::write_atomically;
use crate::task::{Module, Phase, Task};
use crate::{Error, Losses, Result};

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
    /// The images.
    pub data: ImageData,
    /// What is minimised.
    pub losses: TokenizerLosses,
    /// How.
    pub optimization: Optimization,
    /// How often to log, validate and save, in steps.
    pub every: Intervals,
}

/// The first weights. The published standard deviations suit widths of 512 and more; in narrow models every layer
/// adds little at first, and a 1-D decoder, whose queries start out all the same, long paints the mean colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Initialization {
    /// Of linear and convolution weights; 0.02 as published.
    pub weight_std: Option<f64>,
    /// Of position tables; 1/√width as published.
    pub position_std: Option<f64>,
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
    /// Help for the first part of training.
    pub auxiliary: Option<Auxiliary>,
    /// The PatchGAN.
    pub adversarial: Option<Adversarial>,
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

/// Adversarial training with hinge losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adversarial {
    /// Weight of the generator's and of the discriminator's loss (0.5 in all releases).
    pub weight: f64,
    /// The first step, from 1, of both.
    pub start_step: u64,
    /// The discriminator.
    pub discriminator: PatchGanConfig,
}

/// A micro-batch, with the reconstructions that the discriminator is shown afterwards.
#[derive(Debug)]
pub struct TokenizerBatch {
    images: Tensor, // (B, 3, H, W) in [-1, 1]
    fakes: Vec<Tensor>,
}

/// A tokenizer in training.
#[derive(Debug)]
pub struct TokenizerTask {
    recipe: TokenizerRecipe,
    phases: Vec<Phase>,
    vars: Vars,
    model: Model,
    discriminator: Option<(PatchGan, Vars)>,
    train: Loader,
    validation: Option<Loader>,
}

impl TokenizerRecipe {
    /// A recipe with `key=value` changes.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong kind.
    pub fn from_document(document: &Document, changes: &[String]) -> Result<Self> {
        with_overrides(document, changes)
    }
}

impl TokenizerTask {
    /// Draws the first weights on `device` and opens the data.
    ///
    /// # Errors
    /// The recipe contradicts itself, the model cannot be built, or there are no training images.
    pub fn new(recipe: TokenizerRecipe, device: Device) -> Result<Self> {
        recipe.optimization.check()?;
        tch::manual_seed(recipe.seed as i64);
        let vars = Vars::new(device, Kind::Float, Build::Random);
        let model = Model::new(&vars.root(), &recipe.model)?;
        rescale(&vars, recipe.init);
        let mut phases = vec![Phase { name: "generator", start: 1 }];
        let discriminator = recipe.losses.adversarial.as_ref().map(|a| {
            phases.push(Phase { name: "discriminator", start: a.start_step });
            let vars = Vars::new(device, Kind::Float, Build::Random);
            (PatchGan::new(&vars.root(), &a.discriminator), vars)
        });
        let size = recipe.model.image_size();
        let batch = recipe.optimization.micro_batch_size();
        let train = images::training(&recipe.data, size, batch, recipe.seed)?;
        let validation = images::validation(recipe.data.validation.as_deref(), size, batch)?;
        Ok(TokenizerTask { recipe, phases, vars, model, discriminator, train, validation })
    }

    /// The recipe.
    pub fn recipe(&self) -> &TokenizerRecipe {
        &self.recipe
    }

    /// The model's variables.
    pub fn vars(&self) -> &Vars {
        &self.vars
    }

    /// One line on model and data, for people.
    pub fn describe(&self) -> String {
        let millions = self.vars.num_parameters() as f64 / 1e6;
        format!("tokenizer of {millions:.2} M parameters; {}", self.train.dataset().describe())
    }

    fn generator(&self, batch: &mut TokenizerBatch, step: u64) -> Losses {
        let weights = &self.recipe.losses;
        let auxiliary = weights.auxiliary.as_ref().filter(|a| step < a.end_step);
        let direct = auxiliary.is_some_and(|a| a.direct);
        let kind = self.recipe.optimization.precision.kind();
        let out = self.model.forward_train(&batch.images.to_kind(kind), Mode::Train, direct);
        let mut losses = Losses::new();
        pixels(&mut losses, weights, &batch.images, &out.reconstruction, ["l2", "l1"]);
        if let Some(direct) = &out.direct {
            pixels(&mut losses, weights, &batch.images, direct, ["direct_l2", "direct_l1"]);
        }
        losses.add("codebook", out.losses.codebook, 1.0);
        losses.add("commitment", out.losses.commitment, 1.0);
        if let Some(entropy) = out.losses.entropy {
            losses.add("entropy", entropy, 1.0);
        }
        if let Some(a) = auxiliary.filter(|a| a.feature_weight != 0.0) {
            let distance = match a.feature_distance {
                FeatureDistance::Mse => reconstruction::features(&out.cnn_features, &out.decoder_features),
                FeatureDistance::Cosine => {
                    reconstruction::features_cosine(&out.cnn_features, &out.decoder_features)
                }
            };
            losses.add("feature", distance, a.feature_weight);
        }
        batch.fakes = vec![out.reconstruction];
        batch.fakes.extend(out.direct);
        if let (Some(a), Some((network, _))) = (&weights.adversarial, &self.discriminator)
            && step >= a.start_step
        {
            let names = ["adversarial", "direct_adversarial"];
            for (name, fake) in names.into_iter().zip(&batch.fakes) {
                losses.add(name, adversarial::hinge_generator(&network.forward(fake, Mode::Train)), a.weight);
            }
        }
        for fake in &mut batch.fakes {
            *fake = fake.detach();
        }
        losses
    }

    fn discriminator(&self, batch: &TokenizerBatch) -> Losses {
        let a = self.recipe.losses.adversarial.as_ref().expect("there is a second phase only with it");
        let (network, _) = self.discriminator.as_ref().expect("there is a second phase only with it");
        let kind = self.recipe.optimization.precision.kind();
        let mut losses = Losses::new();
        let real = network.forward(&batch.images.to_kind(kind), Mode::Train);
        for (name, fake) in ["hinge", "direct_hinge"].into_iter().zip(&batch.fakes) {
            let fake = network.forward(fake, Mode::Train);
            losses.add(name, adversarial::hinge_discriminator(&real, &fake), a.weight);
            if name == "hinge" {
                losses.observe("logits_real", &real.mean(Kind::Float));
                losses.observe("logits_fake", &fake.mean(Kind::Float));
            }
        }
        losses
    }
}

/// Brings freshly drawn weights to the recipe's standard deviations. The codebook, the projections beside it and
/// the packed attention weights are drawn from other distributions and stay.
fn rescale(vars: &Vars, init: Initialization) {
    const PUBLISHED: f64 = 0.02;
    let _guard = tch::no_grad_guard();
    for mut v in vars.parameters() {
        let width = v.tensor.size().last().copied().unwrap_or(1) as f64;
        let beside_the_codebook = v.name.contains("quant");
        let factor = if v.name.ends_with("positional_embedding") {
            init.position_std.map(|std| std * width.sqrt())
        } else if v.name.ends_with(".weight") && v.tensor.dim() > 1 && !beside_the_codebook {
            init.weight_std.map(|std| std / PUBLISHED)
        } else {
            None
        };
        if let Some(factor) = factor {
            let _ = v.tensor.g_mul_scalar_(factor);
        }
    }
}

/// The pixel losses of one reconstruction under two names.
fn pixels(
    losses: &mut Losses,
    weights: &TokenizerLosses,
    target: &Tensor,
    image: &Tensor,
    names: [&'static str; 2],
) {
    if weights.l2 != 0.0 {
        losses.add(names[0], reconstruction::l2(target, image), weights.l2);
    }
    if weights.l1 != 0.0 {
        losses.add(names[1], reconstruction::l1(target, image), weights.l1);
    }
}

impl Task for TokenizerTask {
    type Batch = TokenizerBatch;

    fn phases(&self) -> &[Phase] {
        &self.phases
    }

    fn module(&self, phase: usize) -> Module<'_> {
        match (phase, &self.discriminator) {
            (0, _) | (_, None) => Module { name: "model", vars: &self.vars },
            (_, Some((_, vars))) => Module { name: "discriminator", vars },
        }
    }

    fn optimization(&self) -> &Optimization {
        &self.recipe.optimization
    }

    fn intervals(&self) -> Intervals {
        self.recipe.every
    }

    fn seed(&self) -> u64 {
        self.recipe.seed
    }

    fn recipe_yaml(&self) -> Result<String> {
        Ok(to_yaml(&self.recipe)?)
    }

    fn batch(&mut self) -> Result<TokenizerBatch> {
        let batch = self.train.next()?.ok_or_else(|| Error::Recipe("the training data ended".into()))?;
        let images = batch.images.tensor().to_device(self.vars.device());
        let images = base::ImagesU8::new(images).map_err(tokenizer::Error::from)?.to_float().into_tensor();
        Ok(TokenizerBatch { images, fakes: vec![] })
    }

    fn losses(&mut self, batch: &mut TokenizerBatch, phase: usize, step: u64) -> Result<Losses> {
        Ok(if phase == 0 { self.generator(batch, step) } else { self.discriminator(batch) })
    }

    fn position(&self) -> Result<String> {
        images::position(self.train.state())
    }

    fn restore(&mut self, position: &str) -> Result<()> {
        Ok(self.train.restore(images::parse_position(position)?)?)
    }

    /// `mse` on [-1, 1], `psnr` of the 8-bit images in dB (mean over images), and the share of the codebook in use.
    fn validate(&mut self) -> Result<Vec<(&'static str, f64)>> {
        let Some(loader) = &mut self.validation else { return Ok(vec![]) };
        let (mut mse, mut psnr, mut count) = (0.0, 0.0, 0.0);
        let size = self.model.spec().codebook_size;
        let device = self.vars.device();
        let used = Tensor::zeros([size], (Kind::Bool, device));
        images::each_batch(loader, |images, _| {
            let target =
                base::ImagesU8::new(images.tensor().to_device(device)).map_err(tokenizer::Error::from)?;
            let codes = self.model.encode(&target.to_float())?;
            let decoded = self.model.decode(&codes)?;
            mse += sum_of_means(&decoded, &target.to_float());
            psnr += sum_of_psnr(decoded.to_u8().tensor(), target.tensor());
            count += target.tensor().size()[0] as f64;
            let _ = used.shallow_clone().index_fill_(0, &codes.tensor().reshape([-1]), 1);
            Ok(())
        })?;
        let usage = used.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        Ok(vec![("mse", mse / count), ("psnr", psnr / count), ("codebook_usage", usage)])
    }

    fn write_model_files(&self, dir: &Path) -> Result<()> {
        write_atomically(&dir.join("config.yaml"), to_yaml(&self.recipe.model)?.as_bytes())
    }
}

fn per_image(squares: &Tensor) -> Tensor {
    squares.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double)
}

fn sum_of_means(a: &Images, b: &Images) -> f64 {
    per_image(&(a.tensor() - b.tensor()).square()).sum(Kind::Double).double_value(&[])
}

/// Peak signal-to-noise ratios of 8-bit images, summed over the batch.
fn sum_of_psnr(a: &Tensor, b: &Tensor) -> f64 {
    let difference = (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)) / 255.0;
    (per_image(&difference.square()).clamp_min(1e-10).log10() * -10.0).sum(Kind::Double).double_value(&[])
}
