//! `gen decode`.

use std::path::PathBuf;

use clap::Args;

use crate::TokenizerJobArgs;

/// Arguments of `gen decode`.
#[derive(Debug, Args)]
pub struct DecodeArgs {
    /// Codes: a safetensors file with `codes` (or `indices`), (B, N) integers; or a folder or shard
    /// of `gen extract`, with one row per view
    #[arg(value_name = "CODES")]
    pub codes: PathBuf,

    /// Output: NAME.safetensors for `images` (B, 3, H, W) fp32, not clamped; otherwise a folder for
    /// PNGs
    #[arg(short, long, value_name = "FILE|DIR")]
    pub output: PathBuf,

    #[command(flatten)]
    pub job: TokenizerJobArgs,
}
