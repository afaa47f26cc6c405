//! `gen train-features`.

use cli::train_features::TrainFeaturesArgs;
use train::Unobserved;
use train::tasks::{FeaturesRecipe, FeaturesTask};

use super::run;
use super::start::{image_overrides, settle, start};
use crate::context::{Context, ExitStatus};
use crate::resolve::device;

const BUILT_IN: &str = include_str!("../../../configs/train/features-64.yaml");

/// Runs the verb.
pub fn run(args: &TrainFeaturesArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let run = &settle(&args.run, context)?;
    let device = device::resolve(&run.device)?;
    let typed = image_overrides(run, "data")?;
    let start = start(run, BUILT_IN, typed, context)?;
    let recipe = FeaturesRecipe::from_document(&start.recipe, &start.changes)?;
    if run.plan {
        return run::plan(&recipe, context);
    }
    let task = FeaturesTask::new(recipe, device)?;
    context.printer.note(&format!("{} on {}", task.describe(), base::device::name(device)));
    run::run(task, run, start.saved, device, &mut Unobserved, context)
}
