//! `gen encode`.

use std::path::PathBuf;

use clap::Args;

use crate::TokenizerJobArgs;

/// Arguments of `gen encode`.
#[derive(Debug, Args)]
pub struct EncodeArgs {
    /// Images: files, folders, tar archives, or safetensors files with a tensor `images` (B, 3, H,
    /// W) in [-1, 1]
    #[arg(value_name = "IMAGES", required = true)]
    pub images: Vec<PathBuf>,

    /// Output safetensors file: `codes` (B, N) int64
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// Also write `features` (B, N, D) fp32: the quantizer's input
    #[arg(long)]
    pub features: bool,

    #[command(flatten)]
    pub job: TokenizerJobArgs,
}
