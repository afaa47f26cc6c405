//! `gen sample`: classes or prompts → images.

mod report;
mod rerender;

use std::path::PathBuf;

use anyhow::Result;
use cli::ModelArgs;
use cli::sample::{DEFAULT_OUTPUT, SampleArgs};
use data::{Class, read_prompts};
use generate::locate::DEFAULT_TEXT_MODEL;
use generate::output::{Outputs, write_images};
use generate::{
    Condition, DrawConfig, GenerateConfig, Generator, ModelPair, ModelsConfig, Order, Prompt, Targets,
    TextConfig,
};
use sampler::{DecodeMode, SamplingConfig};
use settings::{ModelChoice, Rng};
use tch::Device;

use crate::context::{Context, ExitStatus, stop_on_signal};
use crate::error::UserError;
use crate::resolve::device;

/// Makes the images.
pub fn run(args: &SampleArgs, context: &Context) -> Result<ExitStatus> {
    if let Some(png) = &args.from {
        return rerender::run(png, args, context);
    }
    let mut progress = context.printer.clone();
    let GenerateConfig { models, draw } = config(args, prompts(args, context)?)?;
    let generator = Generator::load(models, &mut progress)?;
    let targets = targets(args, &generator)?;
    let mut run = generator.run(&draw)?;
    let folder = match (&args.output, &args.npz) {
        (Some(dir), _) => Some(dir.clone()),
        (None, None) => Some(PathBuf::from(DEFAULT_OUTPUT)),
        (None, Some(_)) => None,
    };
    let world = &context.world;
    let open = || Outputs::open(folder.as_deref(), args.npz.as_deref(), run.settings(), &targets);
    let mut outputs = world.is_first().then(open).transpose()?;
    let (stop, batch) = (stop_on_signal()?, args.batch.batch_size as u64);
    let made = write_images(&mut run, &targets, batch, outputs.as_mut(), world, &stop, &mut progress)?;
    match outputs {
        Some(outputs) => report::finish(args, context, &run, &targets, outputs, made),
        None => Ok(ExitStatus::Done),
    }
}

/// The prompts on the command line, then those of the file, in their order. A prompt that occurs
/// twice is two prompts.
fn prompts(args: &SampleArgs, context: &Context) -> Result<Vec<Prompt>> {
    let mut all = args.prompt.clone();
    if let Some(file) = &args.prompts {
        let prompts = read_prompts(file)?;
        report::prompts(file, &prompts, context);
        all.extend(prompts.texts);
    }
    Ok(Prompt::all(all))
}

/// The models and the run that the arguments describe.
fn config(args: &SampleArgs, prompts: Vec<Prompt>) -> Result<GenerateConfig> {
    let pair = ModelPair::find(&model_of(&args.model, !prompts.is_empty()), &args.tokenizer.choice())?;
    let sampling = SamplingConfig::from_settings(args.sampling.clone().or(pair.sampling_defaults()?))?;
    let device = device::resolve(&args.compute.device)?;
    let text = (!prompts.is_empty()).then(|| TextConfig {
        prompts,
        negative: args.negative_prompt.clone(),
        encoder: args.text_encoder.clone(),
    });
    Ok(GenerateConfig {
        draw: DrawConfig {
            sampling,
            rng: rng(args)?,
            seed: args.seed.seed,
            mode: mode(args, device)?,
            size: args.size,
        },
        models: ModelsConfig {
            pair,
            text,
            device,
            precision: args.compute.precision,
            tokenizer_precision: args.compute.tokenizer_precision,
            gpu: args.compute.gpu,
        },
    })
}

/// The model that is named, else the bundled one that takes such conditions.
fn model_of(named: &ModelArgs, prompts: bool) -> ModelChoice {
    match &named.model {
        None if prompts => ModelChoice { name: Some(DEFAULT_TEXT_MODEL.into()), ..named.choice() },
        _ => named.choice(),
    }
}

/// The source of random numbers that `--rng` and `--speculative` select.
fn rng(args: &SampleArgs) -> Result<Rng> {
    match (args.rng, args.speculative) {
        (None, None) => Ok(Rng::Image),
        (Some(rng), None) => Ok(rng),
        (None | Some(Rng::Gumbel), Some(_)) => Ok(Rng::Gumbel),
        (Some(_), Some(_)) => Err(UserError::new("`--speculative` draws with `--rng gumbel` only")
            .hint("leave `--rng` out; the distribution is the same, the images of a seed are others")
            .into()),
    }
}

/// The mode of `--speculative` and `--cuda-graph`.
fn mode(args: &SampleArgs, device: Device) -> Result<DecodeMode> {
    match (args.speculative, args.compute.cuda_graph) {
        (Some(window), _) => Ok(DecodeMode::Speculative { window: window as usize }),
        (None, false) => Ok(DecodeMode::Stepwise),
        (None, true) => Ok(generate::check_cuda_graphs(device).map(|()| DecodeMode::CudaGraph)?),
    }
}

/// The images that `--class`, the prompts, `--num` and `--num-images` request.
fn targets(args: &SampleArgs, generator: &Generator) -> Result<Targets> {
    let text = generator.config().text.as_ref();
    let prompts = text.iter().flat_map(|text| text.prompts.iter().cloned().map(Condition::Prompt));
    let mut conditions: Vec<Condition> = prompts.collect();
    let each = args.num.unwrap_or(if conditions.is_empty() { 4 } else { 1 });
    if let Some(table) = generator.classes() {
        let mut classes: Vec<Class> = vec![];
        for text in &args.class {
            classes.extend(table.resolve_list(text)?);
        }
        if classes.is_empty() {
            classes = table.classes().cloned().collect();
        }
        conditions = classes.into_iter().map(Condition::Class).collect();
    }
    let (order, count) = match args.draw.num_images {
        Some(n) if args.draw.balanced => (Order::Balanced, n),
        Some(n) if args.rng == Some(Rng::Torch) => (Order::Torch, n),
        Some(n) => (Order::Random, n),
        None => (Order::Each(each), each * conditions.len() as u64),
    };
    Ok(Targets { conditions, order, images: 0..count, seed: args.seed.seed })
}
