use clap::Args;

use crate::train::RunArgs;

/// Trains a small classifier, whose features the recipe key `losses.perceptual` of `train-tokenizer` takes. Ctrl-C
/// finishes the step, saves and exits; `--resume` goes on.
#[derive(Debug, Args)]
pub struct TrainFeaturesArgs {
    #[command(flatten)]
    pub run: RunArgs,
}
