//! `gen sample --from image.png`: the same image once more, from what the PNG remembers.

use std::path::{Path, PathBuf};

use anyhow::Result;
use choices::{GpuOptions, Rng};
use cli::sample::SampleArgs;
use cli::{ModelArgs, PairedTokenizerArgs};
use sampler::{DecodeMode, SamplingConfig};
use serde::Serialize;
use tch::Device;

use super::models::Sources;
use super::output::{Drawn, Folder};
use super::plan::{Order, Plan};
use super::provenance::{GpuSettings, ModelId, Provenance};
use super::subject::{Prompt, Subject};
use super::texts::{Request, Texts};
use super::{DEFAULT_OUTPUT, Job};
use crate::context::{Context, Outcome};
use crate::failure::Failure;
use crate::pictures::Picture;
use crate::settings::device;

#[derive(Debug, Serialize)]
struct Report {
    path: PathBuf,
    from: PathBuf,
    /// Of a pixel's 255 levels; absent if the images have different sizes.
    largest_difference: Option<u8>,
    /// What is not as it was when the image was first made.
    differences: Vec<String>,
}

/// Ends with [`Outcome::Incomplete`] if the new image is not the old one, or not from the same weights.
pub fn run(png: &Path, args: &SampleArgs, context: &Context) -> Result<Outcome> {
    let (then, before) = Provenance::read(png)?;
    if then.run.rng == Rng::Torch {
        let message = format!("`{}` was drawn with `--rng torch`, as one of a batch", png.display());
        return Err(Failure::new(message).hint("repeat the whole run to make it again").into());
    }
    let (model, tokenizer) = stored_or_given(&then, args);
    let mut sources = Sources::find(&model, &tokenizer)?;
    sources.tokenizer_precision = then.run.tokenizer_precision;
    let config = SamplingConfig::from_settings(then.run.sampling.clone())?;
    let device = device::resolve(&args.compute.device)?;
    let gpu = gpu_settings(&then, args, device);
    libtorch_ext::tf32::set(gpu.tf32)?;
    sources.gpu = GpuOptions { gpu_kernels: gpu.kernels, int8_cache: gpu.int8_cache };
    let precision = then.run.precision;
    let prompt = then.subject.prompt.clone().map(|text| Prompt { text, place: 0 });
    let texts = match &prompt {
        Some(prompt) => Some(encode(prompt, &then, &sources, args, device, context)?),
        None => None,
    };
    let models = sources.load(device, precision, context)?;
    let mut job =
        Job::new(models, config, device, precision, Some(then.run.size), then.run.rng, then.run.seed)?;
    if gpu.cuda_graph {
        device::check_cuda_graphs(device)?;
        job.set_mode(DecodeMode::CudaGraph);
    }
    if let Some(texts) = texts {
        job.set_texts(texts, then.run.negative_prompt.clone());
    }
    let subject = match prompt {
        Some(prompt) => Subject::Prompt(prompt),
        None => class_of(&job, &then)?,
    };

    let mut folder = Folder::open(&args.output.clone().unwrap_or(Path::new(DEFAULT_OUTPUT).join("again")))?;
    let path = folder.path_of(then.index);
    refuse_same_file(png, &path)?;
    let plan = Plan {
        subjects: vec![subject],
        order: Order::Each(1),
        images: then.index..then.index + 1,
        seed: then.run.seed,
    };
    let picture = draw_one(&job, &plan)?;
    let largest_difference = largest_difference(&before, &picture);
    folder.write(&job.run, &Drawn::batch(plan.images.clone(), vec![&plan.subjects[0]], vec![picture]))?;
    report(
        args,
        context,
        Report { path, from: png.to_owned(), largest_difference, differences: differences(&then, &job) },
    )
}

/// As the image was made, and what is typed besides; a CPU has none of it, which the report says.
fn gpu_settings(then: &Provenance, args: &SampleArgs, device: Device) -> GpuSettings {
    let (old, typed) = (then.run.gpu, &args.compute);
    let old = if device.is_cuda() { old } else { GpuSettings::default() };
    GpuSettings {
        kernels: old.kernels || typed.gpu.gpu_kernels,
        int8_cache: old.int8_cache || typed.gpu.int8_cache,
        cuda_graph: old.cuda_graph || typed.cuda_graph,
        tf32: old.tf32 || typed.device.tf32,
    }
}

fn draw_one(job: &Job, plan: &Plan) -> Result<Picture> {
    let mut pictures = job.draw(&mut job.pipeline()?, &plan.images, &[&plan.subjects[0]])?;
    pictures.pop().ok_or_else(|| Failure::new("internal error: the model made no image").into())
}

/// The models that the PNG names, unless the command line names others.
fn stored_or_given(then: &Provenance, args: &SampleArgs) -> (ModelArgs, PairedTokenizerArgs) {
    let stored = |id: &ModelId| (Some(id.name.clone()), id.weights.clone().map(PathBuf::from));
    let model = match args.model.model {
        Some(_) => args.model.clone(),
        None => {
            let (model, weights) = stored(&then.run.model);
            ModelArgs { model, weights }
        }
    };
    let tokenizer = match (&args.tokenizer.tokenizer, &args.model.model) {
        (Some(_), _) => args.tokenizer.clone(),
        // Another model comes with its own tokenizer; so does the stored one if none was named apart.
        (None, Some(_)) => PairedTokenizerArgs { tokenizer: None, tokenizer_weights: None },
        (None, None) if then.run.tokenizer.name == then.run.model.name => {
            PairedTokenizerArgs { tokenizer: None, tokenizer_weights: None }
        }
        (None, None) => {
            let (tokenizer, tokenizer_weights) = stored(&then.run.tokenizer);
            PairedTokenizerArgs { tokenizer, tokenizer_weights }
        }
    };
    (model, tokenizer)
}

/// Convolutions round differently on other machines and with another number of threads, which the rounding to 8 bits
/// shows in a few pixels.
const ROUNDING: u8 = 1;

fn largest_difference(a: &Picture, b: &Picture) -> Option<u8> {
    let same_size = (a.width, a.height) == (b.width, b.height);
    same_size.then(|| a.rgb.iter().zip(&b.rgb).map(|(x, y)| x.abs_diff(*y)).max().unwrap_or(0))
}

fn class_of(job: &Job, then: &Provenance) -> Result<Subject> {
    let unfit =
        || Failure::new("the image is of a class, and the model draws prompts, or the other way round");
    let (Some(classes), Some(index)) = (&job.models.classes, then.subject.class) else {
        return Err(unfit().hint("it was made with another model; leave `--model` out").into());
    };
    Ok(Subject::Class(classes.resolve(&index.to_string())?.clone()))
}

/// The features of the image's prompt, by the encoder that is named, else the one it was made with.
fn encode(
    prompt: &Prompt,
    then: &Provenance,
    sources: &Sources,
    args: &SampleArgs,
    device: Device,
    context: &Context,
) -> Result<Texts> {
    // A folder is an encoder of its own; a file is one that was trained along, which the model's directory has.
    let stored =
        then.run.text_encoder.as_ref().map(|id| PathBuf::from(&id.name)).filter(|path| path.is_dir());
    let encoder = args.text_encoder.clone().or(stored);
    let request = Request {
        prompts: &[prompt],
        negative: then.run.negative_prompt.as_deref(),
        encoder: encoder.as_deref(),
        precision: then.run.precision,
    };
    Texts::encode(&request, sources.transformer(), device, context)
}

fn refuse_same_file(from: &Path, to: &Path) -> Result<()> {
    match (from.canonicalize(), to.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => {
            let message = format!("`{}` would be replaced by its repetition", from.display());
            Err(Failure::new(message).hint("choose another folder with `--output`").into())
        }
        _ => Ok(()),
    }
}

fn differences(then: &Provenance, job: &Job) -> Vec<String> {
    let (old, new) = (&then.run, &job.run);
    let gpu = [old.gpu.flags(), new.gpu.flags()];
    let pairs = [
        ("program", &old.program, &new.program),
        ("model weights", &old.model.fingerprint, &new.model.fingerprint),
        ("tokenizer weights", &old.tokenizer.fingerprint, &new.tokenizer.fingerprint),
        ("device", &old.device, &new.device),
        ("settings of the GPU", &gpu[0], &gpu[1]),
    ];
    let fingerprint = |id: &Option<ModelId>| id.as_ref().map(|id| id.fingerprint.clone()).unwrap_or_default();
    let texts = (fingerprint(&old.text_encoder), fingerprint(&new.text_encoder));
    let texts = [("text encoder weights", &texts.0, &texts.1)];
    let changed = pairs.iter().chain(&texts).filter(|(_, a, b)| a != b);
    changed.map(|(what, a, b)| format!("{what}: then {a}, now {b}")).collect()
}

fn report(args: &SampleArgs, context: &Context, report: Report) -> Result<Outcome> {
    for difference in &report.differences {
        context.printer.warning(&format!("not as it was: {difference}"));
    }
    match report.largest_difference {
        Some(0) => context.printer.note("pixel for pixel the same image"),
        Some(ROUNDING) => context.printer.note("the same image, up to the rounding of pixels"),
        Some(n) => {
            let from = report.from.display();
            context.printer.warning(&format!("its pixels differ from `{from}`'s by up to {n} of 255"));
        }
        None => context.printer.warning(&format!("`{}` has another size", report.from.display())),
    }
    if args.json.json {
        context.printer.json(&report)?;
    } else {
        context.printer.line(&report.path.display().to_string())?;
    }
    let same_weights = !report.differences.iter().any(|d| d.contains("weights"));
    let same_image = report.largest_difference.is_some_and(|n| n <= ROUNDING);
    Ok(if same_image && same_weights { Outcome::Done } else { Outcome::Incomplete })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use cli::{Cli, Command};

    use super::super::provenance::example;
    use super::*;

    /// As the image was made on a GPU, with more where that is typed; a CPU has none of it, and the report tells so.
    #[test]
    fn an_image_is_made_again_with_the_numerics_of_its_gpu() {
        let typed = |flags: &str| {
            let line = format!("gen sample --from x.png {flags}");
            match Cli::parse_from(line.split_whitespace()).command {
                Command::Sample(args) => args,
                other => panic!("{other:?}"),
            }
        };
        for gpu in GpuSettings::each() {
            let then = example(gpu);
            assert_eq!(gpu_settings(&then, &typed(""), Device::Cuda(0)), gpu);
            assert_eq!(gpu_settings(&then, &typed(""), Device::Cpu), GpuSettings::default());
        }
        let more = gpu_settings(&example(GpuSettings::each()[3]), &typed("--gpu-kernels"), Device::Cuda(0));
        assert_eq!(more.flags(), "--gpu-kernels --tf32");
    }
}
