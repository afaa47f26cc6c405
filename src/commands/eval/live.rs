//! Images that are made while they are scored: a model's, or a tokenizer's.

use anyhow::Result;
use base::{Codes, Images, ImagesU8, Precision};
use choices::{GpuOptions, ModelChoice, Rng};
use cli::eval::RunArgs;
use data::Class;
use generate::{
    Condition, DrawConfig, Location, ModelPair, ModelsConfig, Order, RunSettings, Targets, locate,
};
use sampler::{DecodeMode, SamplingConfig};
use tch::Device;
use tokenizer::Tokenizer as _;

use crate::context::Context;
use crate::failure::Failure;
use crate::settings::device;

/// A model that draws images of its classes.
pub struct Generator {
    generator: generate::Generator,
    draw: DrawConfig,
    settings: RunSettings,
    targets: Targets,
}

impl Generator {
    /// Opens the models. The images are `--num-images` images, each a function of the seed and its
    /// number alone.
    pub fn open(args: &RunArgs, images: u64, context: &Context) -> Result<Self> {
        let (models, draw) = config(args)?;
        let generator = generate::Generator::load(models, &mut context.printer.clone())?;
        let settings = generator.run(&draw)?.settings().clone();
        let classes = generator.classes().into_iter().flat_map(|table| table.classes());
        let conditions = classes.cloned().map(Condition::Class).collect();
        let order = if args.draw.balanced { Order::Balanced } else { Order::Random };
        let targets = Targets { conditions, order, images: 0..images, seed: args.seed.seed };
        Ok(Generator { generator, draw, settings, targets })
    }

    /// Number of images.
    pub fn len(&self) -> u64 {
        self.targets.len()
    }

    /// Settings of all images.
    pub fn settings(&self) -> &RunSettings {
        &self.settings
    }

    /// The classes that it draws.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.targets.conditions.iter().filter_map(Condition::class)
    }

    /// Choice of the images' classes, in words.
    pub fn draws(&self) -> &'static str {
        match self.targets.order {
            Order::Balanced => "each in turn",
            _ => "uniformly at random",
        }
    }

    /// The images of these numbers, and their classes.
    pub fn make(&self, indices: &[u64]) -> Result<(ImagesU8, Vec<i64>)> {
        let of = |&i: &u64| self.targets.conditions_of(&(i..i + 1), Device::Cpu);
        let conditions: Vec<_> = indices.iter().flat_map(of).collect();
        let images = self.generator.run(&self.draw)?.images(indices, &conditions)?;
        Ok((images, conditions.iter().filter_map(|c| Some(c.class()?.index)).collect()))
    }
}

/// The models and the run that the arguments ask for.
fn config(args: &RunArgs) -> Result<(ModelsConfig, DrawConfig)> {
    let pair = ModelPair::find(&args.model.choice(), &args.tokenizer.choice())?;
    let settings = args.sampling.clone().or(pair.sampling_defaults()?);
    let sampling = SamplingConfig::from_settings(settings)?;
    let device = device::resolve(&args.compute.device)?;
    if pair.takes_prompts()? {
        let failure = Failure::new("the model draws prompts, and images are scored by class here");
        return Err(failure.hint("draw them with `gen sample --prompts`, then score the folder").into());
    }
    let models = ModelsConfig {
        pair,
        text: None,
        device,
        precision: args.compute.precision,
        tokenizer_precision: Precision::Fp32,
        gpu: GpuOptions::default(),
    };
    let (seed, mode) = (args.seed.seed, DecodeMode::Stepwise);
    Ok((models, DrawConfig { sampling, rng: Rng::Image, seed, mode, size: None }))
}

/// A tokenizer that encodes and decodes.
pub struct Reconstructor {
    tokenizer: tokenizer::Loaded,
    device: Device,
}

impl Reconstructor {
    /// Opens the tokenizer.
    pub fn open(args: &RunArgs, context: &Context) -> Result<Self> {
        let given = ModelChoice {
            name: args.tokenizer.tokenizer.clone().or(args.model.model.clone()),
            weights: args.tokenizer.tokenizer_weights.clone(),
        };
        let device = device::resolve(&args.compute.device)?;
        Self::load(&locate::tokenizer(&given)?, device, args.compute.precision, context)
    }

    /// Opens the tokenizer at a place.
    pub fn load(at: &Location, device: Device, precision: Precision, context: &Context) -> Result<Self> {
        let tokenizer = at.open_tokenizer(device, precision, &mut context.printer.clone())?;
        Ok(Reconstructor { tokenizer, device })
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

    /// What is left of images after encoding and decoding (on the CPU, not clamped), and their
    /// codes.
    pub fn run(&self, images: &Images) -> Result<(Images, Codes)> {
        let codes = self.encode(images)?;
        let decoded = self.tokenizer.model.decode(&codes)?.into_tensor().to_kind(tch::Kind::Float);
        let codes = Codes::new(codes.tensor().to_device(Device::Cpu))?;
        Ok((Images::new(decoded.to_device(Device::Cpu))?, codes))
    }
}
