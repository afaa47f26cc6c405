//! `gen eval --recipe`.

use std::path::{Path, PathBuf};

use base::DeviceChoice;
use cli::recipe::RecipeArgs;

use crate::context::{Context, Outcome};
use crate::recipes::BenchmarkJob;
use crate::recipes::pieces::Places;
use crate::recipes::run::run as run_recipe;

/// Measures a published figure again.
pub fn run(
    recipe: &str,
    args: &RecipeArgs,
    device: DeviceChoice,
    json: bool,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let stem = Path::new(recipe).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let name = stem.strip_suffix(".yaml").unwrap_or(&stem);
    let job = BenchmarkJob {
        recipe: recipe.to_owned(),
        places: Places {
            folders: if args.pieces.is_empty() { vec![PathBuf::from(".")] } else { args.pieces.clone() },
            data: args.data.clone(),
            train_data: args.train_data.clone(),
        },
        output: args.work.clone().unwrap_or_else(|| Path::new("benchmarks").join(name)),
        limit: args.limit,
        search: args.search,
        device: device.to_string(),
        json,
    };
    run_recipe(&job, context)
}
