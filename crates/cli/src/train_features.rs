use clap::Args;

use crate::train::RunArgs;

/// Trains a small classifier whose features can serve as `losses.perceptual` of `train-tokenizer`.
/// Ctrl-C finishes the step, saves and exits; `--resume` continues.
#[derive(Debug, Args)]
pub struct TrainFeaturesArgs {
    #[command(flatten)]
    pub run: RunArgs,
}
