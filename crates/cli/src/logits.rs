//! `gen logits`.

use std::path::PathBuf;

use clap::Args;

use crate::{BatchArgs, ComputeArgs, JsonArgs, ModelArgs};

/// Arguments of `gen logits`.
#[derive(Debug, Args)]
pub struct LogitsArgs {
    /// A safetensors file with `codes` (or `indices`, `tokens`), (B, N) integers, and perhaps `class_ids` (B); or a
    /// folder of `gen extract`, or one of its shards, of which each view is a row
    #[arg(long, value_name = "FILE|DIR")]
    pub codes: PathBuf,

    /// Class indices: one for all, or one for each row; the number of classes is the null class
    /// [default: `class_ids` or `labels` of the file]
    #[arg(long, value_name = "INDEX", num_args = 1.., value_delimiter = ',')]
    pub class: Vec<i64>,

    /// The safetensors file to write: `logits` (B, N, V) fp32; row t is the prediction of code t
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
