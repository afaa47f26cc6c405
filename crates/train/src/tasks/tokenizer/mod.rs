//! Training a tokenizer: reconstruction, quantizer and feature losses for the model, and a discriminator against it.

mod adversary;
mod classifier;
mod figures;
mod generator;
mod guides;
mod init;
mod recipe;
mod small;

use std::path::Path;

use base::config::to_yaml;
use base::{Build, ImagesU8, TensorKind, Vars};
use data::{LeftOut, Loader};
use tch::{Device, Kind, Tensor};
use tokenizer::{Model, Tokenizer};
use weights::KeyMap;

use self::adversary::Adversary;
use self::classifier::Judge;
use self::guides::Guides;
pub use self::recipe::{
    Adversarial, Auxiliary, Classifier, DiscriminatorOptimization, FeatureDistance, Perceptual, Semantic,
    Teacher, TokenizerLosses, TokenizerRecipe,
};
use super::images;
use crate::initial::Adoption;
use crate::recipe::Optimization;
use crate::state::write_atomically;
use crate::task::{DataFacts, Module, Phase, Task};
use crate::{Error, Losses, Result};

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
    adversary: Option<Adversary>,
    guides: Guides,
    train: Loader,
    validation: Option<Loader>,
    judge: Option<Judge>,
}

impl TokenizerTask {
    /// Draws the first weights on `device` and opens the data.
    ///
    /// # Errors
    /// The recipe contradicts itself, the model cannot be built, or there are no training images.
    pub fn new(recipe: TokenizerRecipe, device: Device) -> Result<Self> {
        recipe.check()?;
        // What can be missing comes before what takes long; none of it draws from the generator.
        let guides = Guides::new(&recipe, device)?;
        let size = recipe.model.image_size();
        let batch = recipe.optimization.micro_batch_size();
        let train = images::training(&recipe.data, size, batch, recipe.seed)?;
        let validation = images::validation(recipe.data.validation.as_deref(), size, batch)?;
        let judge = judge(&recipe, validation.as_ref(), device)?;

        tch::manual_seed(recipe.seed as i64);
        let vars = Vars::new(device, Kind::Float, Build::Random);
        let model = Model::new(&vars.root(), &recipe.model)?;
        init::apply(&model, &vars, &recipe.init);
        Model::load_vision(&vars.root(), &recipe.model, recipe.init.vision.as_ref())?;
        let mut phases = vec![Phase { name: "generator", start: 1 }];
        let precision = recipe.optimization.precision;
        let adversary = recipe.losses.adversarial.as_ref();
        let adversary = adversary.map(|a| Adversary::new(a, size, device, precision)).transpose()?;
        phases.extend(adversary.as_ref().map(|a| Phase { name: "discriminator", start: a.start_step() }));
        Ok(TokenizerTask { recipe, phases, vars, model, adversary, guides, train, validation, judge })
    }

    /// The model's variables.
    pub fn vars(&self) -> &Vars {
        &self.vars
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The first `count` held-out images, or training images where none are held out, centre-cropped.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn some_images(&self, count: usize) -> Result<ImagesU8> {
        let data = &self.recipe.data;
        let path = data.validation.as_deref().or(data.train.as_deref());
        let loader = images::validation(path, self.recipe.model.image_size(), count)?;
        let batch = loader.map(|mut l| l.next()).transpose()?.flatten();
        let batch = batch.ok_or_else(|| Error::Recipe("there are no images".into()))?;
        Ok(ImagesU8::new(batch.images.tensor().to_device(self.vars.device()))
            .map_err(tokenizer::Error::from)?)
    }

    /// One line on model and data, for people.
    pub fn describe(&self) -> String {
        let millions = self.vars.num_parameters() as f64 / 1e6;
        format!("tokenizer of {millions:.2} M parameters; {}", self.train.dataset().describe())
    }
}

impl Task for TokenizerTask {
    type Batch = TokenizerBatch;
    type Recipe = TokenizerRecipe;

    fn recipe(&self) -> &TokenizerRecipe {
        &self.recipe
    }

    fn phases(&self) -> &[Phase] {
        &self.phases
    }

    fn module(&self, phase: usize) -> Module<'_> {
        match (phase, &self.adversary) {
            (0, _) | (_, None) => Module { name: "model", vars: &self.vars },
            (_, Some(adversary)) => Module { name: "discriminator", vars: adversary.vars() },
        }
    }

    fn optimization_of(&self, phase: usize) -> Optimization {
        let common = &self.recipe.optimization;
        match &self.recipe.losses.adversarial {
            Some(adversarial) if phase > 0 => adversarial.own_optimization(common),
            _ => common.clone(),
        }
    }

    fn adoption(&self) -> Adoption {
        // What only draws a layer to a teacher is no part of the model: another teacher, or none, may follow.
        let replaceable = &["s2ddecoder.distill_mlp"];
        Adoption { map: KeyMap::identity(), replaceable, known: tokenizer::released::signatures }
    }

    fn batch(&mut self) -> Result<TokenizerBatch> {
        let batch = self.train.next()?.ok_or_else(|| Error::Recipe("the training data ended".into()))?;
        let images = batch.images.tensor().to_device(self.vars.device());
        let images = ImagesU8::new(images).map_err(tokenizer::Error::from)?.to_float().into_tensor();
        Ok(TokenizerBatch { images, fakes: vec![] })
    }

    fn losses(&self, batch: &mut TokenizerBatch, phase: usize, step: u64) -> Result<Losses> {
        if phase == 0 {
            return Ok(self.generator(batch, step));
        }
        let adversary = self.adversary.as_ref().expect("there is a second phase only with it");
        let kind = self.recipe.optimization.precision.kind();
        Ok(adversary.discriminator(&batch.images, &batch.fakes, kind, step))
    }

    fn position(&self) -> Result<String> {
        images::position(self.train.state())
    }

    fn restore(&mut self, position: &str) -> Result<()> {
        Ok(self.train.restore(images::parse_position(position)?)?)
    }

    fn data(&self) -> Result<DataFacts> {
        Ok(images::facts(&self.train))
    }

    fn left_out(&self) -> Vec<LeftOut> {
        images::left_out(self.train.left_out(), self.validation.as_ref().map(Loader::left_out))
    }

    /// `mse` on [-1, 1], `psnr` of the 8-bit images in dB (mean over images), the share of the codebook in use, and what
    /// the recipe's classifier says.
    fn validate(&mut self) -> Result<Vec<(&'static str, f64)>> {
        let Some(loader) = &mut self.validation else { return Ok(vec![]) };
        let (mut mse, mut psnr, mut right, mut count) = (0.0, 0.0, 0.0, 0.0);
        let size = self.model.spec().codebook_size;
        let device = self.vars.device();
        let used = Tensor::zeros([size], (Kind::Bool, device));
        images::each_batch(loader, |images, labels| {
            let target = ImagesU8::new(images.tensor().to_device(device)).map_err(tokenizer::Error::from)?;
            let codes = self.model.encode(&target.to_float())?;
            let decoded = self.model.decode(&codes)?;
            mse += figures::sum_of_means(&decoded, &target.to_float());
            let pixels = decoded.to_u8();
            psnr += figures::sum_of_psnr(pixels.tensor(), target.tensor());
            if let Some(judge) = &self.judge {
                right += judge.right(&pixels, labels)?;
            }
            count += target.tensor().size()[0] as f64;
            let _ = used.shallow_clone().index_fill_(0, &codes.tensor().reshape([-1]), 1);
            Ok(())
        })?;
        let usage = used.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        let mut figures = vec![("mse", mse / count), ("psnr", psnr / count), ("codebook_usage", usage)];
        figures.extend(self.judge.as_ref().map(|_| ("class_agreement", right / count)));
        Ok(figures)
    }

    fn write_model_files(&self, dir: &Path) -> Result<()> {
        write_atomically(&dir.join("config.yaml"), to_yaml(&self.recipe.model)?.as_bytes())
    }
}

fn judge(recipe: &TokenizerRecipe, validation: Option<&Loader>, device: Device) -> Result<Option<Judge>> {
    let Some(classifier) = &recipe.classifier else { return Ok(None) };
    let loader = validation.ok_or_else(|| {
        Error::Recipe("classifier: it names held-out images; give `data.validation`, or leave it out".into())
    })?;
    Judge::new(classifier, loader.dataset().classes(), device).map(Some)
}
