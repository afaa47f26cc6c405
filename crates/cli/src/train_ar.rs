use std::path::PathBuf;

use clap::Args;

use crate::TokenizerArgs;
use crate::train::RunArgs;

/// Trains a transformer on a tokenizer's codes, stored by `gen extract` or computed on the fly.
/// Ctrl-C finishes the step, saves and exits; `--resume` continues.
#[derive(Debug, Clone, Args)]
pub struct TrainArArgs {
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,

    /// Stored codes to train on instead of images; further folders are further views of the same
    /// images
    #[arg(long, value_name = "DIR", conflicts_with = "data", help_heading = "Data")]
    pub codes: Vec<PathBuf>,

    /// Stored codes of held-out images
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub validation_codes: Vec<PathBuf>,

    /// Folder of a frozen text encoder (FLAN-T5 in Hugging Face's layout), for text-conditional
    /// recipes
    #[arg(long, value_name = "DIR", conflicts_with = "text_features", help_heading = "Text")]
    pub text_encoder: Option<PathBuf>,

    /// Caption features stored by `gen extract --text`, instead of the encoder; repeatable
    #[arg(long, value_name = "DIR", help_heading = "Text")]
    pub text_features: Vec<PathBuf>,

    #[command(flatten)]
    pub run: RunArgs,
}
