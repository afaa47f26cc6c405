//! Training a tokenizer: reconstruction, quantizer and feature losses, and a discriminator.

mod aux_networks;
mod classifier;
mod cost;
mod discriminator_phase;
mod generator;
mod init;
mod losses;
mod recipe;
mod small;

use std::path::Path;

use base::config::to_yaml;
use base::{Build, ImagesU8, TensorKind, Vars, image};
use data::{Batch, Loader};
use tch::{Device, Kind, Tensor};
use tokenizer::{Model, Tokenizer};
use weights::KeyMap;

use self::aux_networks::AuxNetworks;
use self::classifier::Judge;
use self::discriminator_phase::DiscriminatorPhase;
pub use self::losses::{
    Adversarial, Auxiliary, DiscriminatorOptimization, FeatureDistance, Perceptual, Semantic, Teacher,
    TokenizerLosses,
};
pub use self::recipe::{Classifier, TokenizerRecipe};
use super::images::{self, ImageSets};
use crate::files::write_atomically;
use crate::recipe::Optimization;
use crate::share::Share;
use crate::task::{InitPolicy, Module, Phase, Task};
use crate::{Error, Losses, Result};

/// A micro-batch and, after the generator's phase, its reconstructions for the discriminator.
#[derive(Debug)]
pub struct TokenizerBatch {
    images: Tensor, // (B, 3, H, W) in [-1, 1]
    fake: Vec<Tensor>,
}

/// A tokenizer in training.
#[derive(Debug)]
pub struct TokenizerTask {
    recipe: TokenizerRecipe,
    phases: Vec<Phase>,
    vars: Vars,
    model: Model,
    discriminator: Option<DiscriminatorPhase>,
    networks: AuxNetworks,
    data: ImageSets,
    judge: Option<Judge>,
}

impl TokenizerTask {
    /// Initialises the weights on `device` and opens the data.
    ///
    /// # Errors
    /// Returns an error if the recipe contradicts itself, the model cannot be built, or there are
    /// no training images.
    pub fn new(recipe: TokenizerRecipe, device: Device) -> Result<Self> {
        recipe.check()?;
        // Files that may be missing come first; none of this uses the random generator.
        let precision = recipe.optimization.precision;
        let networks = AuxNetworks::new(&recipe.losses, &recipe.model, precision, device)?;
        let size = recipe.model.image_size();
        let batch = recipe.optimization.micro_batch_size();
        let data = ImageSets::open(&recipe.data, size, batch, recipe.seed)?;
        let judge = judge(&recipe, data.validation.as_ref(), device)?;

        tch::manual_seed(recipe.seed as i64);
        let vars = Vars::new(device, Kind::Float, Build::Random);
        let model = Model::new(&vars.root(), &recipe.model)?;
        init::apply(&model, &vars, &recipe.init);
        Model::load_vision(&vars.root(), &recipe.model, recipe.init.vision.as_ref())?;
        let mut phases = vec![Phase { name: "generator", start: 1 }];
        let adversarial = recipe.losses.adversarial.as_ref();
        let discriminator =
            adversarial.map(|a| DiscriminatorPhase::new(a, size, device, precision)).transpose()?;
        let phase = |d: &DiscriminatorPhase| Phase { name: "discriminator", start: d.start_step() };
        phases.extend(discriminator.as_ref().map(phase));
        Ok(TokenizerTask { recipe, phases, vars, model, discriminator, networks, data, judge })
    }

    /// The model's variables.
    pub fn vars(&self) -> &Vars {
        &self.vars
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The first `count` held-out images, centre-cropped; training images if none are held out.
    ///
    /// # Errors
    /// Returns an error if there are no images or they cannot be read.
    pub fn some_images(&self, count: usize) -> Result<ImagesU8> {
        let data = &self.recipe.data;
        let path = data.validation.as_deref().or(data.train.as_deref());
        let loader = images::validation(path, self.recipe.model.image_size(), count)?;
        let batch = loader.map(|mut l| l.next()).transpose()?.flatten();
        let batch = batch.ok_or_else(|| Error::Recipe("there are no images".into()))?;
        images::to_device(&batch.images, self.vars.device())
    }

    /// Size of the model and its data in one line.
    pub fn describe(&self) -> String {
        let millions = self.vars.num_parameters() as f64 / 1e6;
        format!("tokenizer of {millions:.2} M parameters; {}", self.data.train.dataset().describe())
    }
}

impl Task for TokenizerTask {
    type Batch = TokenizerBatch;
    type Recipe = TokenizerRecipe;
    type Data = ImageSets;

    fn recipe(&self) -> &TokenizerRecipe {
        &self.recipe
    }

    fn data(&self) -> &ImageSets {
        &self.data
    }

    fn data_mut(&mut self) -> &mut ImageSets {
        &mut self.data
    }

    fn phases(&self) -> &[Phase] {
        &self.phases
    }

    fn module(&self, phase: usize) -> Module<'_> {
        match (phase, &self.discriminator) {
            (0, _) | (_, None) => Module { name: "model", vars: &self.vars },
            (_, Some(d)) => Module { name: "discriminator", vars: d.vars() },
        }
    }

    fn optimization_of(&self, phase: usize) -> Optimization {
        let common = &self.recipe.optimization;
        match &self.recipe.losses.adversarial {
            Some(adversarial) if phase > 0 => adversarial.own_optimization(common),
            _ => common.clone(),
        }
    }

    fn init_policy(&self) -> InitPolicy {
        // The alignment head serves training alone, so that the teacher may change.
        let reinit_allowed = &["s2ddecoder.distill_mlp"];
        InitPolicy { map: KeyMap::identity(), reinit_allowed, known: tokenizer::released::signatures }
    }

    fn prepare(&self, batch: Batch) -> Result<TokenizerBatch> {
        let images = images::to_device(&batch.images, self.vars.device())?.to_float().into_tensor();
        Ok(TokenizerBatch { images, fake: vec![] })
    }

    fn losses(&self, batch: &mut TokenizerBatch, phase: usize, step: u64) -> Result<Losses> {
        if phase == 0 {
            return Ok(self.generator(batch, step));
        }
        let discriminator = self.discriminator.as_ref().expect("a second phase has a discriminator");
        let kind = self.recipe.optimization.precision.kind();
        Ok(discriminator.discriminator(&batch.images, &batch.fake, kind, step))
    }

    /// `mse` on [-1, 1], `psnr` of the 8-bit images in dB (mean over images), `codebook_usage`, the
    /// share of codes used, and with a classifier in the recipe `class_agreement`.
    fn validate(&mut self, share: Share<'_>) -> Result<Vec<(&'static str, f64)>> {
        let Some(loader) = &mut self.data.validation else { return Ok(vec![]) };
        let size = self.model.spec().codebook_size;
        let device = self.vars.device();
        let used = Tensor::zeros([size], (Kind::Bool, device));
        let rows = images::each_batch(loader, |images, labels| {
            let target = images::to_device(images, device)?;
            let codes = self.model.encode(&target.to_float())?;
            let decoded = self.model.decode(&codes)?;
            let _ = used.shallow_clone().index_fill_(0, &codes.tensor().reshape([-1]), 1);
            let pixels = decoded.to_u8();
            let correct = self.judge.as_ref().map(|judge| judge.count_correct(&pixels, labels));
            Ok([
                sum(&image::mse(decoded.tensor(), target.to_float().tensor())),
                sum_of_psnr(pixels.tensor(), target.tensor()),
                correct.transpose()?.unwrap_or(0.0),
                target.tensor().size()[0] as f64,
            ])
        })?;
        let [mse, psnr, correct, count] = share.sum(&rows)?;
        let used = share.largest(&Vec::try_from(used.to_device(Device::Cpu).to_kind(Kind::Double))?)?;
        let usage = Tensor::from_slice(&used).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        let mut metrics = vec![("mse", mse / count), ("psnr", psnr / count), ("codebook_usage", usage)];
        metrics.extend(self.judge.as_ref().map(|_| ("class_agreement", correct / count)));
        Ok(metrics)
    }

    fn write_model_files(&self, dir: &Path) -> Result<()> {
        write_atomically(&dir.join("config.yaml"), to_yaml(&self.recipe.model)?.as_bytes())
    }
}

fn judge(recipe: &TokenizerRecipe, validation: Option<&Loader>, device: Device) -> Result<Option<Judge>> {
    let Some(classifier) = &recipe.classifier else { return Ok(None) };
    let loader = validation.ok_or_else(|| {
        Error::Recipe("classifier: it needs held-out images; set `data.validation`, or leave it out".into())
    })?;
    Judge::new(classifier, loader.dataset().classes(), device).map(Some)
}

fn sum(values: &Tensor) -> f64 {
    values.sum(Kind::Double).double_value(&[])
}

/// Peak signal-to-noise ratios of 8-bit images in dB, at most 100 each, summed over the batch.
fn sum_of_psnr(a: &Tensor, b: &Tensor) -> f64 {
    let scaled = |x: &Tensor| x.to_kind(Kind::Double) / 255.0;
    sum(&image::psnr(&image::mse(&scaled(a), &scaled(b)).clamp_min(1e-10)))
}
