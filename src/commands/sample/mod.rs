//! `gen sample`: classes or prompts → images.

mod again;
mod models;
mod npz;
mod output;
mod plan;
mod prompts;
pub mod provenance;
mod subject;
mod texts;

use std::cell::Cell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use ar_model::{AutoregressiveModel as _, Conditioning};
use base::{ImagesU8, Precision, Progress, SampleStream};
use choices::Rng;
use cli::ModelArgs;
use cli::sample::SampleArgs;
use data::Class;
use sampler::{DecodeMode, Pipeline, RandomSource, SamplingConfig};
use serde::Serialize;
use tch::{Device, Tensor};
use tokenizer::Tokenizer;

use self::models::Models;
pub(super) use self::models::Sources;
pub use self::models::classes_of;
use self::npz::NpzRun;
use self::output::{Drawn, Folder, Outputs, Written};
pub(super) use self::plan::{Order, Plan};
use self::provenance::{GpuSettings, RunSettings};
pub(super) use self::subject::Subject;
use self::texts::{Request, Texts};
use crate::context::{Context, Outcome};
use crate::failure::Failure;
use crate::pictures::Picture;
use crate::settings::device;
use crate::settings::models::DEFAULT_TEXT_MODEL;

/// Where PNGs go when nothing is said.
const DEFAULT_OUTPUT: &str = "samples";

/// Makes the images.
pub fn run(args: &SampleArgs, context: &Context) -> Result<Outcome> {
    if let Some(png) = &args.from {
        return again::run(png, args, context);
    }
    let prompts = prompts::gather(&args.prompt, args.prompts.as_deref(), context)?;
    let mut sources = Sources::find(&model_of(&args.model, !prompts.is_empty()), &args.tokenizer)?;
    sources.tokenizer_precision = args.compute.tokenizer_precision;
    sources.gpu = args.compute.gpu;
    let config = args.sampling.clone().or(sources.defaults.clone());
    let config = SamplingConfig::from_settings(config)?;
    let (device, rng) = (device::resolve(&args.compute.device)?, rng(args)?);
    let mode = mode(args, device)?;
    check_subjects(&sources, &prompts)?;
    let request = Request {
        prompts: &prompts.iter().filter_map(Subject::prompt).collect::<Vec<_>>(),
        negative: args.negative_prompt.as_deref(),
        encoder: args.text_encoder.as_deref(),
        precision: args.compute.precision,
    };
    let texts = match prompts.is_empty() {
        true => None,
        false => Some(Texts::encode(&request, sources.transformer(), device, context)?),
    };
    let models = sources.load(device, args.compute.precision, context)?;
    let mut job = Job::new(models, config, device, args.compute.precision, args.size, rng, args.seed.seed)?;
    job.set_mode(mode);
    if let Some(texts) = texts {
        job.set_texts(texts, args.negative_prompt.clone());
    }
    let plan = plan(args, &job.models, prompts)?;
    let mut outputs = open_outputs(args, &job, &plan)?;
    let made = job.make(&plan, args.batch.batch_size as u64, &mut outputs, context)?;
    finish(args, context, &job, &plan, outputs, made)
}

/// What `--rng` and `--speculative` ask for.
fn rng(args: &SampleArgs) -> Result<Rng> {
    match (args.rng, args.speculative) {
        (None, None) => Ok(Rng::Image),
        (Some(rng), None) => Ok(rng),
        (None | Some(Rng::Gumbel), Some(_)) => Ok(Rng::Gumbel),
        (Some(_), Some(_)) => Err(Failure::new("`--speculative` draws with `--rng gumbel` only")
            .hint("leave `--rng` out; the distribution is the same, the images of a seed are others")
            .into()),
    }
}

/// The model that is named, or else the shipped one that draws what is asked for.
fn model_of(named: &ModelArgs, prompts: bool) -> ModelArgs {
    match &named.model {
        None if prompts => {
            ModelArgs { model: Some(DEFAULT_TEXT_MODEL.into()), weights: named.weights.clone() }
        }
        _ => named.clone(),
    }
}

/// Refuses classes of a model that draws prompts, and the other way round, before anything is loaded.
fn check_subjects(sources: &Sources, prompts: &[Subject]) -> Result<()> {
    let failure = match (models::draws_prompts(sources.transformer())?, prompts.is_empty()) {
        (true, true) => Failure::new("the model draws prompts, not classes")
            .hint("say what to draw: `--prompt TEXT`, or `--prompts FILE`"),
        (false, false) => Failure::new("the model draws classes, not prompts")
            .hint("name classes with `--class`, or a text-to-image model with `--model`"),
        _ => return Ok(()),
    };
    Err(failure.into())
}

/// What `--class`, `--prompt`, `--num` and `--num-images` ask for.
fn plan(args: &SampleArgs, models: &Models, prompts: Vec<Subject>) -> Result<Plan> {
    let mut subjects = prompts;
    let each = args.num.unwrap_or(if subjects.is_empty() { 4 } else { 1 });
    if let Some(table) = &models.classes {
        let mut classes: Vec<Class> = vec![];
        for text in &args.class {
            classes.extend(table.resolve_list(text)?);
        }
        if classes.is_empty() {
            classes = table.classes().cloned().collect();
        }
        subjects = classes.into_iter().map(Subject::Class).collect();
    }
    let (order, count) = match args.draw.num_images {
        Some(n) if args.draw.balanced => (Order::Balanced, n),
        Some(n) if args.rng == Some(Rng::Torch) => (Order::Torch, n),
        Some(n) => (Order::Random, n),
        None => (Order::Each(each), each * subjects.len() as u64),
    };
    Ok(Plan { subjects, order, images: 0..count, seed: args.seed.seed })
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
    let classes: Vec<i64> = plan.subjects.iter().filter_map(|s| Some(s.class()?.index)).collect();
    let prompts: Vec<&str> = plan.subjects.iter().filter_map(|s| Some(s.prompt()?.text.as_str())).collect();
    match prompts.is_empty() {
        true => description["classes"] = classes.into(),
        false => description["prompts"] = prompts.into(),
    }
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

/// The mode of `--speculative` and `--cuda-graph`.
fn mode(args: &SampleArgs, device: Device) -> Result<DecodeMode> {
    match (args.speculative, args.compute.cuda_graph) {
        (Some(window), _) => Ok(DecodeMode::Speculative { window: window as usize }),
        (None, false) => Ok(DecodeMode::Stepwise),
        (None, true) => device::check_cuda_graphs(device).map(|()| DecodeMode::CudaGraph),
    }
}

/// A run: models and settings.
pub(super) struct Job {
    models: Models,
    config: SamplingConfig,
    device: Device,
    run: RunSettings,
    texts: Option<Texts>,
    mode: DecodeMode,
    /// Forward passes of the transformer, and codes drawn in them.
    passes: Cell<(usize, usize)>,
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
        Pipeline::new(&models.transformer, &models.tokenizer.model)?; // before anything is written
        let codes = models.transformer.spec().num_tokens;
        let side = models.tokenizer.model.spec().image_size_of(codes).expect("the pipeline checked it");
        let run = RunSettings {
            program: concat!("gen ", env!("CARGO_PKG_VERSION")).into(),
            model: models.transformer_id.clone(),
            tokenizer: models.tokenizer_id.clone(),
            text_encoder: None,
            negative_prompt: None,
            sampling: config.settings(),
            rng,
            seed,
            size: size.unwrap_or(side),
            precision,
            tokenizer_precision: models.tokenizer_precision,
            device: if device.is_cuda() { "cuda".into() } else { "cpu".into() },
            gpu: GpuSettings {
                kernels: models.gpu.gpu_kernels,
                int8_cache: models.gpu.int8_cache,
                cuda_graph: false,
                tf32: device.is_cuda() && libtorch_ext::tf32::get()?.contains(&true),
            },
        };
        Ok(Job {
            models,
            config,
            device,
            run,
            texts: None,
            mode: DecodeMode::Stepwise,
            passes: Cell::default(),
        })
    }

    /// Decodes in this mode.
    fn set_mode(&mut self, mode: DecodeMode) {
        self.run.gpu.cuda_graph = mode == DecodeMode::CudaGraph;
        self.mode = mode;
    }

    /// Draws prompts, whose features these are.
    fn set_texts(&mut self, texts: Texts, negative_prompt: Option<String>) {
        self.run.text_encoder = Some(texts.encoder.clone());
        self.run.negative_prompt = negative_prompt;
        self.texts = Some(texts);
    }

    fn pipeline(&self) -> Result<Pipeline<'_, ar_model::Decoder, tokenizer::Model>> {
        let mut pipeline = Pipeline::new(&self.models.transformer, &self.models.tokenizer.model)?;
        pipeline.set_negative(self.texts.as_ref().and_then(Texts::negative));
        Ok(pipeline)
    }

    fn conditions(&self, subjects: &[&Subject]) -> Result<Conditioning> {
        if let Some(texts) = &self.texts {
            return texts.conditions(&subjects.iter().filter_map(|s| s.prompt()).collect::<Vec<_>>());
        }
        let labels: Vec<i64> = subjects.iter().filter_map(|s| Some(s.class()?.index)).collect();
        Ok(Conditioning::Class(Tensor::from_slice(&labels).to_device(self.device)))
    }

    /// Makes what is still missing, until the end or a signal.
    fn make<'p>(
        &self,
        plan: &'p Plan,
        batch_size: u64,
        outputs: &mut Outputs,
        context: &Context,
    ) -> Result<Made> {
        let mut pipeline = self.pipeline()?;
        if self.run.rng == Rng::Torch {
            tch::manual_seed(self.run.seed as i64);
        }
        let first = outputs.first_missing();
        if first > 0 {
            context.printer.note(&format!("continuing after {first} of {} images", plan.len()));
        }
        let stop = crate::context::stop_on_signal()?;
        let (started, mut images) = (Instant::now(), 0);
        let mut progress = context.printer.clone();
        progress.start("images", Some(plan.images.end - first));
        let drawn = |send: &mut dyn FnMut(Vec<Drawn<'p>>) -> bool| -> Result<()> {
            for batch in plan.batches(first, batch_size) {
                let subjects = plan.subjects_of(&batch, self.device);
                let pictures = self.draw(&mut pipeline, &batch, &subjects)?;
                let n = pictures.len() as u64;
                if !send(Drawn::batch(batch, subjects, pictures)) {
                    break; // writing failed, which is reported below
                }
                progress.advance(n);
                images += n;
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            Ok(())
        };
        write_beside(&self.run, outputs, drawn)?;
        progress.finish();
        let complete = first + images == plan.len();
        Ok(Made { images, complete, seconds: started.elapsed().as_secs_f64() })
    }

    fn codes_per_pass(&self) -> f64 {
        let (passes, codes) = self.passes.get();
        codes as f64 / passes.max(1) as f64
    }

    fn draw(
        &self,
        pipeline: &mut Pipeline<ar_model::Decoder, tokenizer::Model>,
        batch: &Range<u64>,
        subjects: &[&Subject],
    ) -> Result<Vec<Picture>> {
        let indices: Vec<u64> = batch.clone().collect();
        Picture::from_batch(&self.draw_with(pipeline, &indices, subjects)?)
    }

    /// The images of these numbers and subjects, (B, 3, S, S).
    pub fn draw_images(&self, indices: &[u64], subjects: &[&Subject]) -> Result<ImagesU8> {
        self.draw_with(&mut self.pipeline()?, indices, subjects)
    }

    /// What all images of the run share.
    pub fn run(&self) -> &RunSettings {
        &self.run
    }

    fn draw_with(
        &self,
        pipeline: &mut Pipeline<ar_model::Decoder, tokenizer::Model>,
        indices: &[u64],
        subjects: &[&Subject],
    ) -> Result<ImagesU8> {
        let cond = self.conditions(subjects)?;
        let streams: Vec<SampleStream> =
            indices.iter().map(|&index| SampleStream { seed: self.run.seed, index }).collect();
        let source = match self.run.rng {
            Rng::Image => RandomSource::Streams(&streams),
            Rng::Gumbel => RandomSource::Gumbel(&streams),
            Rng::Torch => RandomSource::Torch,
        };
        let (generation, images) = pipeline.images(&cond, &self.config, source, self.mode)?;
        let (passes, codes) = self.passes.get();
        self.passes.set((passes + generation.passes, codes + generation.codes.tensor().numel()));
        let rounded = sampler::resize(images, self.run.size)?.to_u8();
        Ok(ImagesU8::new(rounded.into_tensor().to_device(Device::Cpu))?)
    }
}

/// Batches that may wait to be written: enough that a slow disk does not stop the networks at once.
const WAITING: usize = 2;

/// Writes batches on a thread of its own while `draw` makes the next ones. `draw` is given what takes a batch, which
/// says whether to go on.
fn write_beside<'p>(
    run: &RunSettings,
    outputs: &mut Outputs,
    draw: impl FnOnce(&mut dyn FnMut(Vec<Drawn<'p>>) -> bool) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<Drawn>>(WAITING);
        let writer = scope.spawn(move || receiver.iter().try_for_each(|batch| outputs.write(run, &batch)));
        let drawn = draw(&mut |batch| sender.send(batch).is_ok());
        drop(sender);
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written.and(drawn)
    })
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
    /// How many codes a pass of the transformer gave, where that is not one.
    #[serde(skip_serializing_if = "Option::is_none")]
    codes_per_pass: Option<f64>,
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
        Some(folder) => {
            folder.list_prompts()?;
            folder.finish(&job.run, columns(plan))?
        }
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
        codes_per_pass: matches!(job.mode, DecodeMode::Speculative { .. }).then(|| job.codes_per_pass()),
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

/// Images of several classes or prompts: a row each. Otherwise about a square.
fn columns(plan: &Plan) -> usize {
    match plan.order {
        Order::Each(num) if plan.subjects.len() > 1 && (2..=16).contains(&num) => num as usize,
        _ => (plan.len().min(256) as f64).sqrt().ceil() as usize,
    }
}
