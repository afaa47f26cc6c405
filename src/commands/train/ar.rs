//! `gen train-ar`.

use std::path::Path;

use base::config::Document;
use base::{Precision, Silent};
use cli::train_ar::TrainArArgs;
use generate::{Location, locate};
use tch::Device;
use tokenizer::Tokenizer;
use train::tasks::{ArRecipe, ArTask, TokenizerRecipe};

use super::run;
use super::samples::Samples;
use super::start::{image_overrides, path_override, settle, start};
use crate::context::{Context, ExitStatus};
use crate::error::UserError;
use crate::resolve::device;

const BUILT_IN: &str = include_str!("../../../configs/train/gpt-64.yaml");

/// Runs the verb.
pub fn run(args: &TrainArArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let mut settled = args.clone();
    settled.run = settle(&args.run, context)?;
    if settled.run.resumes() && !args.run.resumes() {
        settled.tokenizer.tokenizer = None; // the run has its own
        settled.tokenizer.weights = None;
    }
    let (args, run) = (&settled, &settled.run);
    let device = device::resolve(&run.device)?;
    if run.plan {
        return plan(args, context);
    }
    let location = tokenizer(args)?;
    let mut start = start(run, BUILT_IN, overrides(args, &location, context)?, context)?;
    start.changes.splice(0..0, text_override(args, &start.recipe)?); // before the changes that were typed
    // In fp32, as in the official trainers.
    let tokenizer = location.open_tokenizer(device, Precision::Fp32, &mut Silent)?;
    let recipe = ArRecipe::from_document(start.recipe, &start.changes, tokenizer.model.spec())?;
    let task = ArTask::new(recipe, tokenizer, device)?;
    context.printer.note(&format!("{} on {}", task.describe(), base::device::name(device)));
    run::run(task, run, start.saved, device, &mut Samples(run.output()), context)
}

/// `--plan`. A recipe that takes the number of codes from the tokenizer needs the tokenizer's
/// configuration.
fn plan(args: &TrainArArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let start = start(&args.run, BUILT_IN, vec![], context)?;
    let model = start.recipe.to_json()?["model"].clone();
    let named = |key: &str| start.changes.iter().any(|c| c.starts_with(&format!("model.{key}=")));
    let open = |key: &str| model[key].is_null() && !named(key);
    let recipe = if open("vocab_size") || open("num_tokens") {
        let config = tokenizer(args)?.config_file();
        let vars = base::Vars::new(Device::Cpu, tch::Kind::Float, base::Build::Meta);
        let model = tokenizer::Model::new(&vars.root(), &tokenizer::TokenizerConfig::read(&config)?)?;
        ArRecipe::from_document(start.recipe, &start.changes, model.spec())?
    } else {
        ArRecipe::complete(&start.recipe, &start.changes)?
    };
    run::plan(&recipe, context)
}

/// Location of the tokenizer; for a resumed or forked run, the copy in the run's directory.
fn tokenizer(args: &TrainArArgs) -> anyhow::Result<Location> {
    let run = &args.run;
    let begun = match (&run.fork, run.resumes()) {
        (None, false) => return Ok(locate::tokenizer(&args.tokenizer.choice())?),
        (None, true) => run.output().to_owned(),
        (Some(fork), _) if fork.is_dir() => fork.clone(),
        (Some(state), _) => {
            let folder = state.parent().and_then(Path::parent).unwrap_or(Path::new(""));
            folder.to_owned()
        }
    };
    if args.tokenizer.tokenizer.is_some() {
        let message = format!("`{}` has its tokenizer, and `--tokenizer` names another", begun.display());
        return Err(UserError::new(message).hint("leave `--tokenizer` out").into());
    }
    Ok(Location::Directory(begun.join("tokenizer")))
}

/// Flags as changes to the recipe. If no data is named at all, the tokenizer's training images are
/// used, if its directory is a run that records them.
fn overrides(args: &TrainArArgs, location: &Location, context: &Context) -> anyhow::Result<Vec<String>> {
    let run = &args.run;
    let mut typed = image_overrides(run, "data.images")?;
    for (key, folders) in [("data.codes", &args.codes), ("data.validation_codes", &args.validation_codes)] {
        if !folders.is_empty() {
            let all = folders.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>()?;
            typed.push(format!("{key}={}", serde_json::to_string(&all)?));
        }
    }
    if let (true, None, false, Location::Directory(dir)) =
        (typed.is_empty(), &run.recipe, run.resumes() || run.fork.is_some(), location)
        && let Some(recipe) = tokenizer_recipe(dir)?
    {
        let images = recipe.data;
        for (key, path) in
            [("data.images.train", &images.train), ("data.images.validation", &images.validation)]
        {
            if let Some(path) = path {
                context.printer.note(&format!("{key}: `{}`, as for the tokenizer", path.display()));
                typed.push(path_override(key, path)?);
            }
        }
    }
    Ok(typed)
}

/// The text encoder, in the recipe's precision if it has one, or its stored features, as a change
/// to the recipe.
fn text_override(args: &TrainArArgs, recipe: &Document) -> anyhow::Result<Option<String>> {
    let encoder = match (&args.text_encoder, args.text_features.as_slice()) {
        (Some(folder), _) => {
            let known = recipe.to_json()?.pointer("/text/encoder/precision").cloned();
            let precision = known.unwrap_or_else(|| Precision::Bf16.to_string().into());
            let folder = std::path::absolute(folder)?;
            serde_json::json!({ "type": "frozen", "folder": folder, "precision": precision })
        }
        (None, []) => return Ok(None),
        (None, folders) => {
            let all = folders.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>()?;
            serde_json::json!({"type": "stored", "features": all})
        }
    };
    Ok(Some(format!("text.encoder={encoder}")))
}

/// The recipe in a tokenizer's directory, if there is one.
fn tokenizer_recipe(dir: &Path) -> anyhow::Result<Option<TokenizerRecipe>> {
    let path = dir.join("recipe.yaml");
    Ok(if path.is_file() { Some(Document::read(&path)?.typed()?) } else { None })
}
