//! `gen train-tokenizer`.

use cli::train_tokenizer::TrainTokenizerArgs;
use train::tasks::{TokenizerRecipe, TokenizerTask};

use super::{Context, Outcome, train_samples::Reconstructions};
use crate::settings::device;

const BUILT_IN: &str = include_str!("../../configs/train/tokenizer-64.yaml");

/// Runs the verb.
pub fn run(args: &TrainTokenizerArgs, context: &Context) -> anyhow::Result<Outcome> {
    let run = &args.run;
    let device = device::resolve(&run.device)?;
    let typed = super::train::image_overrides(run, "data")?;
    let start = super::train::start(run, BUILT_IN, typed, context)?;
    let recipe = TokenizerRecipe::from_document(&start.recipe, &start.changes)?;
    if run.plan {
        return super::train::plan(&recipe, context);
    }
    let task = TokenizerTask::new(recipe, device)?;
    context.printer.note(&format!("{} on {}", task.describe(), base::device::name(device)));
    super::train::run(task, run, start.saved, device, &mut Reconstructions::new(run.output()), context)
}
