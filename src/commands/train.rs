//! Shared part of all training verbs.

use std::path::Path;

use anyhow::Context as _;
use base::TensorKind;
use base::config::Document;
use cli::train::RunArgs;
use tch::Device;
use train::{Observer, Recipe, Run, Task, TrainCheckpoint};

use crate::context::{Context, Outcome};
use crate::resolve::device;

/// Start of a run: a recipe, or a saved state with its recipe.
pub struct Start {
    /// The recipe.
    pub recipe: Document,
    /// Flags and overrides, as `key=value` changes to it.
    pub changes: Vec<String>,
    /// Saved state to continue from.
    pub saved: Option<TrainCheckpoint>,
}

/// Finds the recipe and the state. `typed` holds the overrides of the verb's flags; those given as
/// `key=value` come after them.
pub fn start(
    args: &RunArgs,
    built_in: &str,
    mut typed: Vec<String>,
    context: &Context,
) -> anyhow::Result<Start> {
    if !args.resume && !args.plan {
        train::check_unused(args.output())?;
    }
    let state = match &args.fork {
        Some(fork) => Some((fork.as_path(), TrainCheckpoint::at(fork)?)),
        None if args.resume => Some((args.output(), TrainCheckpoint::newest(args.output())?)),
        None => None,
    };
    let (recipe, saved) = if let Some((from, (saved, damaged))) = state {
        damaged.iter().for_each(|d| context.printer.warning(d));
        let origin = format!("the recipe in `{}`", from.display());
        (Document::parse(&origin, &saved.recipe)?, Some(saved))
    } else {
        let recipe = match &args.recipe {
            Some(path) => Document::read(path)?,
            None => Document::parse("the built-in recipe", built_in)?,
        };
        (recipe, None)
    };
    if let Some(path) = &args.init_from {
        typed.push(path_override("init_from", path)?);
    }
    typed.extend(args.seed.map(|s| format!("seed={s}")));
    typed.extend(args.device.tf32.then(|| "optimization.tf32=true".to_owned()));
    typed.extend(args.set.iter().cloned());
    Ok(Start { recipe, changes: typed, saved })
}

/// The images given by flags, as changes to a recipe that has them under `prefix`.
pub fn image_overrides(args: &RunArgs, prefix: &str) -> anyhow::Result<Vec<String>> {
    let named = [("train", &args.data), ("validation", &args.validation)];
    let given = named.into_iter().filter_map(|(key, path)| Some((key, path.as_deref()?)));
    given.map(|(key, path)| path_override(&format!("{prefix}.{key}"), path)).collect()
}

/// `key=value` for a path, quoted as YAML.
pub fn path_override(key: &str, path: &Path) -> anyhow::Result<String> {
    let absolute = std::path::absolute(path).with_context(|| format!("cannot find `{}`", path.display()))?;
    let text = absolute.to_str().with_context(|| format!("`{}` is not valid UTF-8", path.display()))?;
    Ok(format!("{key}={}", serde_json::to_string(text)?))
}

/// Name of the program: version, commit if known (`+` marks changes since), libtorch.
fn program() -> anyhow::Result<String> {
    let commit = option_env!("GEN_COMMIT").map(|c| format!(", commit {c}")).unwrap_or_default();
    let libtorch = libtorch_ext::runtime::libtorch_version()?;
    Ok(format!("gen {}{commit}, libtorch {libtorch}", env!("CARGO_PKG_VERSION")))
}

/// `--plan`: prints the cost of a run.
pub fn plan(recipe: &impl Recipe, context: &Context) -> anyhow::Result<Outcome> {
    recipe.check()?;
    let cost = recipe.cost()?;
    let mut lines = cost.lines();
    if let Some((data, size)) = recipe.images().filter(|(data, _)| data.train.is_some()) {
        let speed = train::images_per_second(data, size)?;
        lines.push(("pictures, one core".into(), format!("{speed:.0} images/s decoded and cut, measured")));
        let wanted = cost.h200_images_per_second();
        lines.push(("cores to feed an H200".into(), format!("{:.0}", (wanted / speed).ceil())));
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in lines {
        context.printer.line(&format!("{name:width$}  {value}"))?;
    }
    Ok(Outcome::Done)
}

/// Prints the memory of the run, and a warning with remedies if the device has less.
fn say_memory(recipe: &impl Recipe, device: Device, context: &Context) -> anyhow::Result<()> {
    let (cost, available) = (recipe.cost()?, device::memory(device));
    context.printer.note(&cost.memory_line(available));
    if let Some(free) = available.filter(|free| cost.bytes() > *free as f64) {
        let parts = cost.micro_batches_for(free as f64).map(|n| format!("`optimization.micro_batches={n}`"));
        let recompute = recipe.can_recompute().then(|| "`recompute=true`".to_owned());
        let ways: Vec<String> = parts.into_iter().chain(recompute).collect();
        let ways = if ways.is_empty() { "a smaller model".to_owned() } else { ways.join(" or ") };
        context.printer.warning(&format!("that may be more than the device has; {ways} would take less"));
    }
    Ok(())
}

/// Trains until the last step or the first SIGINT or SIGTERM; a second one ends the program at once.
pub fn run<T: Task>(
    mut task: T,
    args: &RunArgs,
    saved: Option<TrainCheckpoint>,
    device: Device,
    observer: &mut dyn Observer<T>,
    context: &Context,
) -> anyhow::Result<Outcome> {
    say_memory(task.recipe(), device, context)?;
    libtorch_ext::runtime::keep_freed_memory();
    let tf32 = device.is_cuda() && task.optimization().tf32;
    libtorch_ext::tf32::set(tf32)?;
    let stop = crate::context::stop_on_signal()?;
    let mut progress = context.printer.clone();
    let kind = task.optimization().precision.kind();
    let peak = args.peak_tflops.map_or_else(|| train::peak::measure(device, kind), |n| n * 1e12);
    let how = if args.peak_tflops.is_some() { "as given" } else { "measured now" };
    context.printer.note(&format!("MFU is a share of {:.3} TFLOP/s, {how}", peak / 1e12));
    if let Some(text) = saved.as_ref().and_then(|saved| saved.rate_jump(task.optimization())) {
        context.printer.warning(&text);
    }
    match (&saved, args.resume) {
        (Some(saved), true) => context.printer.note(&format!("resuming after step {}", saved.step)),
        (Some(saved), false) => {
            saved.check_fork(task.optimization())?;
            context.printer.note(&format!(
                "continuing from {} after its step {}",
                saved.describe(),
                saved.step
            ));
        }
        _ => {}
    }
    let run = Run {
        dir: args.output(),
        resume: saved.as_ref(),
        stop: &stop,
        program: &program()?,
        device: &base::device::name(device),
        tf32,
        peak: Some(peak),
    };
    let outcome = train::train_observed(&mut task, &run, &mut progress, observer)?;
    let dir = args.output().display();
    context.printer.line(&match outcome.interrupted {
        false => format!("trained {} steps; the model is in {dir}", outcome.step),
        true => format!("stopped after step {}; `--resume --output {dir}` goes on", outcome.step),
    })?;
    Ok(if outcome.interrupted { Outcome::Incomplete } else { Outcome::Done })
}
