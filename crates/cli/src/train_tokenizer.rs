use clap::Args;

use super::train::RunArgs;

/// Trains a tokenizer. Ctrl-C finishes the step, saves and exits; `--resume` goes on.
#[derive(Debug, Args)]
pub struct TrainTokenizerArgs {
    #[command(flatten)]
    pub run: RunArgs,
}
