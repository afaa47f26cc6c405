//! `gen sample`: classes → images.

mod again;
mod models;
mod npz;
mod output;
mod plan;
pub mod provenance;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use ar_model::Conditioning;
use base::{ImagesU8, Precision, Progress, SampleStream};
use data::Class;
use sampler::{Draw, Pipeline, SamplingConfig, SamplingSettings};
use serde::Serialize;
use tch::{Device, Tensor};
use tokenizer::Tokenizer;

use self::models::Models;
pub(super) use self::models::Sources;
use self::npz::NpzRun;
use self::output::{Drawn, Folder, Outputs, Written};
pub(super) use self::plan::{Order, Plan};
use self::provenance::{Rng, RunSettings};
use super::{Context, Outcome};
use crate::cli::sample::{SampleArgs, SamplingArgs};
use crate::failure::Failure;
use crate::pictures::Picture;
use crate::settings::device;

/// Where PNGs go when nothing is said.
const DEFAULT_OUTPUT: &str = "samples";

/// Makes the images.
pub fn run(args: &SampleArgs, context: &Context) -> Result<Outcome> {
    if let Some(png) = &args.from {
        return again::run(png, args, context);
    }
    let sources = Sources::find(&args.model, &args.tokenizer)?;
    let config = settings(&args.sampling).or(sources.defaults.clone()).resolve()?;
    let device = device::resolve(&args.compute.device)?;
    let models = sources.load(device, args.compute.precision, context)?;
    let job = Job::new(models, config, device, args.compute.precision, args.size, args.rng, args.seed.seed)?;
    let plan = plan(args, &job.models)?;
    let mut outputs = open_outputs(args, &job, &plan)?;
    let made = job.make(&plan, args.batch.batch_size as u64, &mut outputs, context)?;
    finish(args, context, &job, &plan, outputs, made)
}

/// The settings that were typed.
pub(super) fn settings(args: &SamplingArgs) -> SamplingSettings {
    let a = args.clone();
    SamplingSettings {
        cfg: a.cfg,
        cfg_schedule: a.cfg_schedule,
        cfg_start: a.cfg_start,
        cfg_end: a.cfg_end,
        cfg_interval: a.cfg_interval,
        temperature: a.temperature,
        top_k: a.top_k,
        top_p: a.top_p,
        min_p: a.min_p,
    }
}

/// What `--class`, `--num` and `--num-images` ask for.
fn plan(args: &SampleArgs, models: &Models) -> Result<Plan> {
    let mut classes: Vec<Class> = vec![];
    for text in &args.class {
        classes.extend(models.classes.resolve_list(text)?);
    }
    if classes.is_empty() {
        classes = models.classes.classes().cloned().collect();
    }
    let (order, count) = match args.draw.num_images {
        Some(n) if args.draw.balanced => (Order::Balanced, n),
        Some(n) if args.rng == Rng::Torch => (Order::Torch, n),
        Some(n) => (Order::Random, n),
        None => (Order::Each(args.num), args.num * classes.len() as u64),
    };
    Ok(Plan { classes, order, images: 0..count, seed: args.seed.seed })
}

fn open_outputs(args: &SampleArgs, job: &Job, plan: &Plan) -> Result<Outputs> {
    let dir = match (&args.output, &args.npz) {
        (Some(dir), _) => Some(dir.clone()),
        (None, None) => Some(PathBuf::from(DEFAULT_OUTPUT)),
        (None, Some(_)) => None,
    };
    let folder = dir.as_deref().map(Folder::open).transpose()?;
    let npz = args.npz.as_deref().map(|path| open_npz(path, job, plan)).transpose()?;
    Ok(Outputs { folder, npz })
}

fn open_npz(path: &Path, job: &Job, plan: &Plan) -> Result<NpzRun> {
    let mut description = serde_json::to_value(&job.run)?;
    description["images"] = plan.len().into();
    description["order"] = format!("{:?}", plan.order).into();
    description["classes"] = plan.classes.iter().map(|c| c.index).collect::<Vec<_>>().into();
    let npz = NpzRun::open(path, &description, job.run.size as u64)?;
    if npz.done() > 0 && job.run.rng == Rng::Torch {
        return Err(Failure::new(format!(
            "`{}` cannot be continued: with `--rng torch` every image depends on those before",
            path.display()
        ))
        .hint("remove its `.partial` and `.partial.json` to begin anew, or use `--rng image`")
        .into());
    }
    Ok(npz)
}

/// A run: models and settings.
pub(super) struct Job {
    models: Models,
    config: SamplingConfig,
    device: Device,
    run: RunSettings,
}

impl Job {
    /// Checks that the models go together.
    pub fn new(
        models: Models,
        config: SamplingConfig,
        device: Device,
        precision: Precision,
        size: Option<i64>,
        rng: Rng,
        seed: u64,
    ) -> Result<Self> {
        Pipeline::new(&models.transformer.model, &models.tokenizer.model)?; // before anything is written
        let run = RunSettings {
            program: concat!("gen ", env!("CARGO_PKG_VERSION")).into(),
            model: models.transformer_id.clone(),
            tokenizer: models.tokenizer_id.clone(),
            sampling: config.settings(),
            rng,
            seed,
            size: size.unwrap_or(models.tokenizer.model.spec().image_size),
            precision,
            device: if device.is_cuda() { "cuda".into() } else { "cpu".into() },
        };
        Ok(Job { models, config, device, run })
    }

    /// Makes what is still missing, until the end or a signal.
    fn make(&self, plan: &Plan, batch_size: u64, outputs: &mut Outputs, context: &Context) -> Result<Made> {
        let mut pipeline = Pipeline::new(&self.models.transformer.model, &self.models.tokenizer.model)?;
        if self.run.rng == Rng::Torch {
            tch::manual_seed(self.run.seed as i64);
        }
        let first = outputs.first_missing();
        if first > 0 {
            context.printer.note(&format!("continuing after {first} of {} images", plan.len()));
        }
        let stop = super::stop_on_signal()?;
        let (started, mut images) = (Instant::now(), 0);
        let mut progress = context.printer.clone();
        progress.start("images", Some(plan.images.end - first));
        for batch in plan.batches(first, batch_size) {
            let classes = plan.classes_of(&batch, self.device);
            let pictures = self.draw(&mut pipeline, &batch, &classes)?;
            let n = pictures.len() as u64;
            outputs.write(&self.run, &Drawn::batch(batch, classes, pictures))?;
            progress.advance(n);
            images += n;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        progress.finish();
        let complete = first + images == plan.len();
        Ok(Made { images, complete, seconds: started.elapsed().as_secs_f64() })
    }

    fn draw(
        &self,
        pipeline: &mut Pipeline<ar_model::Gpt, tokenizer::Model>,
        batch: &Range<u64>,
        classes: &[&Class],
    ) -> Result<Vec<Picture>> {
        let indices: Vec<u64> = batch.clone().collect();
        Picture::from_batch(&self.draw_with(pipeline, &indices, classes)?)
    }

    /// The images of these numbers and classes, (B, 3, S, S).
    pub fn draw_images(&self, indices: &[u64], classes: &[&Class]) -> Result<ImagesU8> {
        let mut pipeline = Pipeline::new(&self.models.transformer.model, &self.models.tokenizer.model)?;
        self.draw_with(&mut pipeline, indices, classes)
    }

    /// What all images of the run share.
    pub fn run(&self) -> &RunSettings {
        &self.run
    }

    fn draw_with(
        &self,
        pipeline: &mut Pipeline<ar_model::Gpt, tokenizer::Model>,
        indices: &[u64],
        classes: &[&Class],
    ) -> Result<ImagesU8> {
        let labels: Vec<i64> = classes.iter().map(|c| c.index).collect();
        let cond = Conditioning::Class(Tensor::from_slice(&labels).to_device(self.device));
        let streams: Vec<SampleStream> =
            indices.iter().map(|&index| SampleStream { seed: self.run.seed, index }).collect();
        let draw = match self.run.rng {
            Rng::Image => Draw::Streams(&streams),
            Rng::Torch => Draw::Torch,
        };
        let (_, images) = pipeline.images(&cond, &self.config, draw)?;
        let rounded = sampler::resize(images, self.run.size)?.to_u8();
        Ok(ImagesU8::new(rounded.into_tensor().to_device(Device::Cpu))?)
    }
}

/// What a run got done.
#[derive(Debug, Clone, Copy)]
struct Made {
    images: u64,
    /// Whether nothing is missing.
    complete: bool,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    /// False when a signal stopped it.
    complete: bool,
    images: Vec<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grid: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    npz: Option<PathBuf>,
    settings: &'a RunSettings,
    seconds: f64,
    images_per_second: f64,
}

fn finish(
    args: &SampleArgs,
    context: &Context,
    job: &Job,
    plan: &Plan,
    outputs: Outputs,
    made: Made,
) -> Result<Outcome> {
    let grid = match &outputs.folder {
        Some(folder) => folder.finish(&job.run, columns(plan))?,
        None => None,
    };
    let images = outputs.folder.map(|f| f.written).unwrap_or_default();
    let npz = outputs.npz.filter(|_| made.complete).map(NpzRun::finish).transpose()?;
    let report = Report {
        complete: made.complete,
        images,
        grid,
        npz,
        settings: &job.run,
        seconds: made.seconds,
        images_per_second: made.images as f64 / made.seconds.max(1e-9),
    };
    if !made.complete {
        let going_on = if args.npz.is_some() { "; the same command goes on" } else { "" };
        context.printer.warning(&format!("stopped after {} images{going_on}", made.images));
    }
    match args.json.json {
        true => context.printer.json(&report)?,
        false => list(&report, context)?,
    }
    Ok(if made.complete { Outcome::Done } else { Outcome::Incomplete })
}

/// The files, the first few by name.
fn list(report: &Report, context: &Context) -> Result<()> {
    const MOST_LISTED: usize = 16;
    for image in report.images.iter().take(MOST_LISTED) {
        context.printer.line(&image.path().display().to_string())?;
    }
    if report.images.len() > MOST_LISTED {
        context.printer.line(&format!("… and {} more", report.images.len() - MOST_LISTED))?;
    }
    for path in report.grid.iter().chain(&report.npz) {
        context.printer.line(&path.display().to_string())?;
    }
    Ok(())
}

/// Images of several classes: a row a class. Otherwise about a square.
fn columns(plan: &Plan) -> usize {
    match plan.order {
        Order::Each(num) if plan.classes.len() > 1 && (2..=16).contains(&num) => num as usize,
        _ => (plan.len().min(256) as f64).sqrt().ceil() as usize,
    }
}
