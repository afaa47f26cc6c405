//! `gen train-features`.

use cli::train_features::TrainFeaturesArgs;
use train::Unobserved;
use train::tasks::{FeaturesRecipe, FeaturesTask};

use crate::context::{Context, Outcome};
use crate::resolve::device;

const BUILT_IN: &str = include_str!("../../configs/train/features-64.yaml");

/// Runs the verb.
pub fn run(args: &TrainFeaturesArgs, context: &Context) -> anyhow::Result<Outcome> {
    let run = &args.run;
    let device = device::resolve(&run.device)?;
    let typed = super::train::image_overrides(run, "data")?;
    let start = super::train::start(run, BUILT_IN, typed, context)?;
    let recipe = FeaturesRecipe::from_document(&start.recipe, &start.changes)?;
    if run.plan {
        return super::train::plan(&recipe, context);
    }
    let task = FeaturesTask::new(recipe, device)?;
    context.printer.note(&format!("{} on {}", task.describe(), base::device::name(device)));
    super::train::run(task, run, start.saved, device, &mut Unobserved, context)
}
