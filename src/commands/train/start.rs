//! Start of a run: its recipe, or the saved state that it continues.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base::config::Document;
use cli::train::{Resume, RunArgs};
use train::TrainCheckpoint;

use crate::context::Context;
use crate::error::UserError;

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
    let world = &context.world;
    if !args.resumes() && !args.plan {
        world.from_first(|| check_unused(args))?;
    }
    let from = args.fork.as_deref().or_else(|| args.resumes().then(|| args.output()));
    let state = from.map(|from| anyhow::Ok((from, open_state(args, context)?)));
    let (recipe, saved) = if let Some((from, (saved, damaged))) = state.transpose()? {
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

/// The state to continue from, which the first process chooses, and messages about damaged ones. A
/// state is compared with its digests when it is opened, so that each process opens it once.
fn open_state(args: &RunArgs, context: &Context) -> anyhow::Result<(TrainCheckpoint, Vec<String>)> {
    let mut opened = None;
    let (path, damaged) = context.world.from_first(|| -> anyhow::Result<(PathBuf, Vec<String>)> {
        let (state, damaged) = match &args.fork {
            Some(fork) => TrainCheckpoint::at(fork)?,
            None => TrainCheckpoint::newest(args.output())?,
        };
        Ok((opened.insert(state).path().to_owned(), damaged))
    })?;
    let state = opened.map_or_else(|| Ok(TrainCheckpoint::at(&path)?.0), anyhow::Ok)?;
    Ok((state, damaged))
}

/// Decides on `--resume=auto`, which a launcher that starts processes again implies: a run that has
/// a state continues with its own recipe; where there is none it begins.
pub fn settle(args: &RunArgs, context: &Context) -> anyhow::Result<RunArgs> {
    let auto = args.resume == Some(Resume::Auto) || args.resume.is_none() && context.world.is_restart();
    let begun = auto && context.world.from_first(|| anyhow::Ok(train::has_state(args.output())?))?;
    let mut settled = args.clone();
    match (auto, begun) {
        (true, true) => {
            settled.resume = Some(Resume::Always);
            (settled.recipe, settled.init_from, settled.fork) = (None, None, None);
        }
        (true, false) => settled.resume = Some(Resume::Auto),
        (false, _) => {}
    }
    let other = [
        ("--recipe", settled.recipe.is_some()),
        ("--init-from", settled.init_from.is_some()),
        ("--fork", settled.fork.is_some()),
    ];
    if let Some((flag, _)) = other.iter().find(|(_, given)| *given && settled.resumes()) {
        let message = format!("`--resume` continues with the run's own recipe and weights, not `{flag}`");
        return Err(UserError::new(message)
            .hint("`--resume=auto` is for both the start and what follows")
            .into());
    }
    Ok(settled)
}

/// Refuses a directory that holds something else than a run stopped before its first checkpoint,
/// where that may be started again.
fn check_unused(args: &RunArgs) -> anyhow::Result<()> {
    let stopped = args.resume == Some(Resume::Auto) && args.output().join("recipe.yaml").is_file();
    if stopped && !train::has_state(args.output())? {
        return Ok(());
    }
    Ok(train::check_unused(args.output())?)
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
