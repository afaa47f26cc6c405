use clap::Args;

use crate::train::RunArgs;

/// Trains a tokenizer. Ctrl-C finishes the step, saves and exits; `--resume` continues.
#[derive(Debug, Args)]
pub struct TrainTokenizerArgs {
    #[command(flatten)]
    pub run: RunArgs,
}
