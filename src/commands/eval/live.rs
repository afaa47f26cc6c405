//! Images that are made while they are scored: a model's, or a tokenizer's.

use anyhow::Result;
use base::{Codes, Images, ImagesU8, Precision};
use cli::eval::RunArgs;
use data::Class;
use eval::{EvalBatch, ImagePair, ImageSet, ImageSource, Input, Item, PixelPair, Side, next_input};
use generate::{
    Condition, DrawConfig, Location, ModelPair, ModelsConfig, Order, RunSettings, Targets, locate,
};
use sampler::{DecodeMode, SamplingConfig};
use settings::{GpuOptions, ModelChoice, Rng};
use tch::Device;
use tokenizer::Tokenizer as _;

use crate::context::Context;
use crate::failure::Failure;
use crate::resolve::device;

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

    /// Settings of all images.
    pub fn settings(&self) -> &RunSettings {
        &self.settings
    }

    /// The classes that it draws.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.targets.conditions.iter().filter_map(Condition::class)
    }

    /// Order of the classes in words.
    pub fn draws(&self) -> &'static str {
        match self.targets.order {
            Order::Balanced => "each in turn",
            _ => "uniformly at random",
        }
    }

    fn make(&self, mut items: Vec<Item>) -> Result<EvalBatch> {
        let indices: Vec<u64> = items.iter().map(|item| item.index).collect();
        let of = |&i: &u64| self.targets.conditions_of(&(i..i + 1), Device::Cpu);
        let conditions: Vec<_> = indices.iter().flat_map(of).collect();
        let images = self.generator.run(&self.draw)?.images(&indices, &conditions)?;
        for (item, condition) in items.iter_mut().zip(&conditions) {
            item.class = condition.class().map(|class| class.index);
        }
        Ok(EvalBatch::of_sets(items, Some(images), None))
    }
}

impl ImageSource for Generator {
    fn phase(&self) -> &'static str {
        "images"
    }

    fn num_images(&self) -> u64 {
        self.targets.len()
    }

    fn batch(&self, items: Vec<Item>, _: Vec<ImagesU8>) -> eval::Result<EvalBatch> {
        self.make(items).map_err(failed)
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

    /// Fingerprint of the weights.
    pub fn fingerprint(&self) -> Result<String> {
        Ok(self.tokenizer.fingerprint()?)
    }

    /// The codes of images, on the tokenizer's device.
    pub fn encode(&self, images: &Images) -> Result<Codes> {
        Ok(self.tokenizer.model.encode(&Images::new(images.tensor().to_device(self.device))?)?)
    }

    /// Reconstructions of images (on the CPU, not clamped), and their codes.
    pub fn run(&self, images: &Images) -> Result<(Images, Codes)> {
        let codes = self.encode(images)?;
        let decoded = self.tokenizer.model.decode(&codes)?.into_tensor().to_kind(tch::Kind::Float);
        let codes = Codes::new(codes.tensor().to_device(Device::Cpu))?;
        Ok((Images::new(decoded.to_device(Device::Cpu))?, codes))
    }
}

/// A tokenizer's reconstructions of images, and what they are compared with.
pub struct Reconstructions<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Reconstructor,
    /// Images at its size.
    pub images: &'a ImageSet,
    /// Side to which reconstructions and originals are resized before they are scored, if it is not
    /// the tokenizer's.
    pub side: Option<u32>,
    /// The set compared with.
    pub reference: Originals,
}

/// The set that reconstructions are compared with.
pub enum Originals {
    /// A reference of its own.
    Elsewhere,
    /// The images that the tokenizer is given.
    AsGiven,
    /// The same images, cropped to the size of the scores.
    Cropped(ImageSet),
}

impl Reconstructions<'_> {
    fn reconstruct(&self, items: Vec<Item>, images: Vec<ImagesU8>) -> Result<EvalBatch> {
        let mut images = images.into_iter();
        let given = next_input(&mut images)?;
        let mut originals = given.to_float();
        let (mut decoded, codes) = self.tokenizer.run(&originals).map_err(|e| named(e, &items))?;
        if let Some(side) = self.side {
            // As LlamaGen's script: both in floating point, and neither clamped first.
            decoded = sampler::resize(decoded, i64::from(side))?;
            originals = sampler::resize(originals, i64::from(side))?;
        }
        let samples = decoded.to_u8();
        let pixels = PixelPair::published(&samples, &originals)?;
        // LPIPS sees the decoder's output as it is, neither clamped nor rounded.
        let pair = Some(ImagePair { pixels, judged: decoded, originals });
        let reference = match self.reference {
            Originals::Elsewhere => None,
            Originals::AsGiven => Some(given),
            Originals::Cropped(_) => Some(next_input(&mut images)?),
        };
        Ok(EvalBatch { pair, codes: Some(codes), ..EvalBatch::of_sets(items, Some(samples), reference) })
    }
}

impl ImageSource for Reconstructions<'_> {
    fn phase(&self) -> &'static str {
        "reconstructions"
    }

    fn num_images(&self) -> u64 {
        self.images.len() as u64
    }

    fn inputs(&self) -> Vec<Input> {
        match &self.reference {
            Originals::Elsewhere => vec![Input::new(self.images, Side::Samples)],
            Originals::AsGiven => vec![Input::new(self.images, Side::Reference)],
            Originals::Cropped(originals) => {
                vec![Input { set: self.images.clone(), side: None }, Input::new(originals, Side::Reference)]
            }
        }
    }

    fn batch(&self, items: Vec<Item>, images: Vec<ImagesU8>) -> eval::Result<EvalBatch> {
        self.reconstruct(items, images).map_err(failed)
    }
}

/// Names the image of a tokenizer's error about an image of a batch.
pub fn named(error: anyhow::Error, items: &[Item]) -> anyhow::Error {
    match error.downcast::<tokenizer::Error>() {
        Ok(e) => e.of_images(|i| format!("`{}`", items[i].name)).into(),
        Err(e) => e,
    }
}

/// The error of a source for the evaluation.
pub fn failed(error: anyhow::Error) -> eval::Error {
    eval::Error::Source(error.reallocate_into_boxed_dyn_error_without_backtrace())
}
