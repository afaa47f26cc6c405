//! `gen logits`.

use std::path::PathBuf;

use clap::Args;

use crate::{BatchArgs, ComputeArgs, JsonArgs, ModelArgs};

/// Arguments of `gen logits`.
#[derive(Debug, Args)]
pub struct LogitsArgs {
    /// Codes: a safetensors file with `codes` (or `indices`, `tokens`), (B, N) integers, and
    /// optionally `class_ids` (B); or a folder or shard of `gen extract`, with one row per view
    #[arg(long, value_name = "FILE|DIR")]
    pub codes: PathBuf,

    /// Class indices, one for all rows or one per row; the number of classes is the null class
    /// [default: `class_ids` or `labels` of the file]
    #[arg(long, value_name = "INDEX", num_args = 1.., value_delimiter = ',')]
    pub class: Vec<i64>,

    /// Output safetensors file: `logits` (B, N, V) fp32; row t predicts code t
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub batch: BatchArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}
