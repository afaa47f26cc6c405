//! Images that are made while they are scored: a model's, or a tokenizer's.

use std::ops::Range;

use anyhow::Result;
use base::{Codes, Images, ImagesU8, Precision};
use choices::Rng;
use cli::TokenizerArgs;
use cli::eval::RunArgs;
use data::Class;
use sampler::SamplingConfig;
use tch::Device;
use tokenizer::Tokenizer as _;

use crate::commands::sample::{self, Job, Order, Plan, Sources, Subject};
use crate::context::Context;
use crate::failure::Failure;
use crate::settings::{device, models, models::Location};

/// A model that draws images of its classes.
pub struct Generator {
    job: Job,
    plan: Plan,
}

impl Generator {
    /// Opens the models and settles what is drawn: `--num-images` images, each a function of the seed and its number alone.
    pub fn open(args: &RunArgs, images: u64, context: &Context) -> Result<Self> {
        let sources = Sources::find(&args.model, &args.tokenizer)?;
        let config = SamplingConfig::from_settings(args.sampling.clone().or(sources.defaults.clone()))?;
        let device = device::resolve(&args.compute.device)?;
        let precision = args.compute.precision;
        let models = sources.load(device, precision, context)?;
        let Some(classes) = &models.classes else {
            let failure = Failure::new("the model draws prompts, and images are scored by class here");
            return Err(failure.hint("draw them with `gen sample --prompts`, then score the folder").into());
        };
        let subjects = classes.classes().cloned().map(Subject::Class).collect();
        let job = Job::new(models, config, device, precision, None, Rng::Image, args.seed.seed)?;
        let order = if args.draw.balanced { Order::Balanced } else { Order::Random };
        Ok(Generator { job, plan: Plan { subjects, order, images: 0..images, seed: args.seed.seed } })
    }

    /// How many images.
    pub fn len(&self) -> u64 {
        self.plan.len()
    }

    /// What it draws with.
    pub fn settings(&self) -> &sample::provenance::RunSettings {
        self.job.run()
    }

    /// The classes that it draws.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.plan.subjects.iter().filter_map(Subject::class)
    }

    /// How the classes of images are chosen.
    pub fn draws(&self) -> &'static str {
        match self.plan.order {
            Order::Balanced => "each in turn",
            _ => "uniformly at random",
        }
    }

    /// The images of these numbers, and their classes.
    pub fn make(&self, indices: &[u64]) -> Result<(ImagesU8, Vec<i64>)> {
        let one = |index: u64| -> Range<u64> { index..index + 1 };
        let subjects: Vec<_> =
            indices.iter().flat_map(|&i| self.plan.subjects_of(&one(i), Device::Cpu)).collect();
        let images = self.job.draw_images(indices, &subjects)?;
        Ok((images, subjects.iter().filter_map(|s| Some(s.class()?.index)).collect()))
    }
}

/// A tokenizer that encodes and decodes.
pub struct Reconstructor {
    tokenizer: tokenizer::Loaded,
    device: Device,
}

impl Reconstructor {
    /// Opens the tokenizer.
    pub fn open(args: &RunArgs, context: &Context) -> Result<Self> {
        let given = TokenizerArgs {
            tokenizer: args.tokenizer.tokenizer.clone().or(args.model.model.clone()),
            weights: args.tokenizer.tokenizer_weights.clone(),
        };
        let device = device::resolve(&args.compute.device)?;
        Self::load(&models::tokenizer(&given)?, device, args.compute.precision, context)
    }

    /// Opens the tokenizer at a place.
    pub fn load(at: &Location, device: Device, precision: Precision, context: &Context) -> Result<Self> {
        Ok(Reconstructor { tokenizer: at.open_tokenizer(device, precision, context)?, device })
    }

    /// The side of its images.
    pub fn side(&self) -> u32 {
        u32::try_from(self.tokenizer.model.spec().image_size).unwrap_or(u32::MAX)
    }

    /// Entries of its codebook.
    pub fn codebook_size(&self) -> i64 {
        self.tokenizer.model.spec().codebook_size
    }

    /// Whose weights.
    pub fn fingerprint(&self) -> Result<String> {
        Ok(self.tokenizer.fingerprint()?)
    }

    /// The codes of images, on the tokenizer's device.
    pub fn encode(&self, images: &Images) -> Result<Codes> {
        Ok(self.tokenizer.model.encode(&Images::new(images.tensor().to_device(self.device))?)?)
    }

    /// What is left of images after encoding and decoding (on the CPU, not clamped), and their codes.
    pub fn run(&self, images: &Images) -> Result<(Images, Codes)> {
        let codes = self.encode(images)?;
        let decoded = self.tokenizer.model.decode(&codes)?.into_tensor().to_kind(tch::Kind::Float);
        let codes = Codes::new(codes.tensor().to_device(Device::Cpu))?;
        Ok((Images::new(decoded.to_device(Device::Cpu))?, codes))
    }
}
