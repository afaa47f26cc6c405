use std::path::PathBuf;

use clap::Args;

use crate::TokenizerArgs;
use crate::train::RunArgs;

/// Trains a transformer on a tokenizer's codes, stored by `gen extract` or made on the fly. Ctrl-C finishes the step,
/// saves and exits; `--resume` goes on.
#[derive(Debug, Args)]
pub struct TrainArArgs {
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,

    /// Stored codes to train on instead of images; several folders are further views of the same images
    #[arg(long, value_name = "DIR", conflicts_with = "data", help_heading = "Data")]
    pub codes: Vec<PathBuf>,

    /// Stored codes of held-out images
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub validation_codes: Vec<PathBuf>,

    /// For a text-conditional recipe: a frozen text encoder's folder (FLAN-T5 in Hugging Face's layout)
    #[arg(long, value_name = "DIR", conflicts_with = "text_features", help_heading = "Text")]
    pub text_encoder: Option<PathBuf>,

    /// Features of the captions that `gen extract --text` stored, instead of the encoder; several folders add up
    #[arg(long, value_name = "DIR", help_heading = "Text")]
    pub text_features: Vec<PathBuf>,

    #[command(flatten)]
    pub run: RunArgs,
}
