//! `gen reconstruct`.

use std::path::PathBuf;

use clap::Args;

use crate::TokenizerJobArgs;

/// Arguments of `gen reconstruct`.
#[derive(Debug, Args)]
pub struct ReconstructArgs {
    /// Images: files, folders, tar archives, or safetensors files with a tensor `images` (B, 3, H,
    /// W) in [-1, 1]
    #[arg(value_name = "IMAGES", required = true)]
    pub images: Vec<PathBuf>,

    /// Output folder for reconstructions and `sheet.png`, with originals and reconstructions side
    /// by side
    #[arg(short, long, value_name = "DIR", default_value = "reconstructions")]
    pub output: PathBuf,

    #[command(flatten)]
    pub job: TokenizerJobArgs,
}
