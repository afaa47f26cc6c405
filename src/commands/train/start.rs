//! Start of a run: its recipe, or the saved state that it continues.

use std::path::Path;

use anyhow::Context as _;
use base::config::Document;
use cli::train::RunArgs;
use train::TrainCheckpoint;

use crate::context::Context;

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
