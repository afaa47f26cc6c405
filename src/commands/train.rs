//! What all training verbs do.

use std::path::Path;

use anyhow::Context as _;
use base::config::Document;
use train::{Run, Saved, Task};

use super::{Context, Outcome};
use crate::cli::train::RunArgs;

/// Where a run begins: at a recipe, or at a saved state with its own.
pub struct Start {
    /// The recipe.
    pub recipe: Document,
    /// What was typed, as `key=value` changes to it.
    pub changes: Vec<String>,
    /// The state to go on from.
    pub saved: Option<Saved>,
}

/// Finds the recipe and the state. `typed` are overrides that stand for flags of the verb; what is typed as
/// `key=value` comes after them.
pub fn start(
    args: &RunArgs,
    built_in: &str,
    mut typed: Vec<String>,
    context: &Context,
) -> anyhow::Result<Start> {
    let (recipe, saved) = if args.resume {
        let (saved, damaged) = Saved::newest(&args.output)?;
        damaged.iter().for_each(|d| context.printer.warning(d));
        let origin = args.output.join("recipe.yaml").display().to_string();
        (Document::parse(&origin, &saved.recipe)?, Some(saved))
    } else {
        train::state::check_unused(&args.output)?;
        let recipe = match &args.recipe {
            Some(path) => Document::read(path)?,
            None => Document::parse("the built-in recipe", built_in)?,
        };
        (recipe, None)
    };
    typed.extend(args.seed.map(|s| format!("seed={s}")));
    typed.extend(args.set.iter().cloned());
    Ok(Start { recipe, changes: typed, saved })
}

/// The images that were named by flags, as changes to a recipe that has them under `prefix`.
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

/// The program that trains: version, commit where it is known (`+` marks changes since), libtorch.
fn program() -> anyhow::Result<String> {
    let commit = option_env!("GEN_COMMIT").map(|c| format!(", commit {c}")).unwrap_or_default();
    let libtorch = libtorch_ext::runtime::libtorch_version()?;
    Ok(format!("gen {}{commit}, libtorch {libtorch}", env!("CARGO_PKG_VERSION")))
}

/// Trains until the last step or the first SIGINT or SIGTERM; a second one ends the program at once.
pub fn run<T: Task>(
    mut task: T,
    args: &RunArgs,
    saved: Option<Saved>,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let stop = super::stop_on_signal()?;
    let mut progress = context.printer.clone();
    let (device, kind) = (task.module(0).vars.device(), task.optimization().precision.kind());
    let peak = args.peak_tflops.map_or_else(|| train::peak::measure(device, kind), |n| n * 1e12);
    context.printer.note(&format!("{:.3} TFLOP/s is what MFU is told of", peak / 1e12));
    if let Some(saved) = &saved {
        context.printer.note(&format!("resuming after step {}", saved.step));
    }
    let run = Run {
        dir: &args.output,
        resume: saved.as_ref(),
        stop: &stop,
        program: &program()?,
        device: &base::device::name(device),
        peak: Some(peak),
    };
    let outcome = train::train(&mut task, &run, &mut progress)?;
    let dir = args.output.display();
    context.printer.line(&match outcome.interrupted {
        false => format!("trained {} steps; the model is in {dir}", outcome.step),
        true => format!("stopped after step {}; `--resume --output {dir}` goes on", outcome.step),
    })?;
    Ok(if outcome.interrupted { Outcome::Incomplete } else { Outcome::Done })
}
