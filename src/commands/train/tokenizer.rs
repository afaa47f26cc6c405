//! `gen train-tokenizer`.

use anyhow::Context as _;
use base::ImagesU8;
use cli::train_tokenizer::TrainTokenizerArgs;
use generate::Picture;
use tch::{Device, Kind, Tensor};
use train::tasks::{TokenizerRecipe, TokenizerTask};

use super::run;
use super::samples::Reconstructions;
use super::start::{image_overrides, settle, start};
use crate::context::{Context, ExitStatus};
use crate::resolve::device;

const BUILT_IN: &str = include_str!("../../../configs/train/tokenizer-64.yaml");

/// Runs the verb.
pub fn run(args: &TrainTokenizerArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let run = &settle(&args.run, context)?;
    let device = device::resolve(&run.device)?;
    let typed = image_overrides(run, "data")?;
    let start = start(run, BUILT_IN, typed, context)?;
    let recipe = TokenizerRecipe::from_document(&start.recipe, &start.changes)?;
    if let Some(text) = recipe.never_reached() {
        context.printer.warning(&text);
    }
    if run.plan {
        recipe.check()?;
        rehearse(&recipe, context)?;
        return run::plan(&recipe, context);
    }
    let task = TokenizerTask::new(recipe, device)?;
    context.printer.note(&format!("{} on {}", task.describe(), base::device::name(device)));
    run::run(task, run, start.saved, device, &mut Reconstructions::new(run.output()), context)
}

/// Tries a step of each phase with small networks on two pictures of noise, if their files exist.
fn rehearse(recipe: &TokenizerRecipe, context: &Context) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let side = recipe.model.image_size() as usize;
    let noise = Tensor::randint(256, [2, 3, side as i64, side as i64], (Kind::Uint8, Device::Cpu));
    for (i, picture) in Picture::from_batch(&ImagesU8::new(noise)?)?.iter().enumerate() {
        picture.write_png(&folder.path().join(format!("{i}.png")), &[])?;
    }
    match TokenizerTask::new(recipe.small(folder.path())?, Device::Cpu) {
        Ok(mut task) => {
            train::rehearse(&mut task)?;
            let said = "every phase takes its step, tried with narrow networks on pictures of noise";
            context.printer.note(said);
        }
        // Contradictions exist at any size.
        Err(e @ (train::Error::Recipe(_) | train::Error::Tokenizer(_))) => return Err(e.into()),
        // A network's file is missing: `--plan` does not need it.
        Err(e) => context.printer.note(&format!("no step was tried: {e}")),
    }
    Ok(())
}
