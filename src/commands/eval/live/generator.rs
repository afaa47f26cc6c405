//! A model's images.

use anyhow::Result;
use base::{ImagesU8, Precision};
use cli::eval::RunArgs;
use data::Class;
use eval::{EvalBatch, ImageSource, Item};
use generate::{Condition, DrawConfig, ModelPair, ModelsConfig, Order, RunSettings, Targets};
use sampler::{DecodeMode, SamplingConfig};
use settings::{GpuOptions, Rng};
use tch::Device;

use super::error::failed;
use crate::context::Context;
use crate::error::UserError;
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

/// The models and the run that the arguments describe.
fn config(args: &RunArgs) -> Result<(ModelsConfig, DrawConfig)> {
    let pair = ModelPair::find(&args.model.choice(), &args.tokenizer.choice())?;
    let settings = args.sampling.clone().or(pair.sampling_defaults()?);
    let sampling = SamplingConfig::from_settings(settings)?;
    let device = device::resolve(&args.compute.device)?;
    if pair.takes_prompts()? {
        let error = UserError::new("the model draws prompts, and images are scored by class here");
        return Err(error.hint("draw them with `gen sample --prompts`, then score the folder").into());
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
