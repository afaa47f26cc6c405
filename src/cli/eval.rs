//! `gen eval`.

use clap::Args;

use super::recipe::RecipeArgs;
use super::{DeviceArgs, JsonArgs};

/// Measures published figures again.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub recipe: RecipeArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}
