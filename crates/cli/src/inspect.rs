//! `gen inspect`.

use std::path::PathBuf;

use clap::Args;

use crate::JsonArgs;

/// Arguments of `gen inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Checkpoint (.pt, .safetensors, or a shard index), config, folder of codes or its index, or
    /// model directory
    #[arg(value_name = "FILE|DIR")]
    pub path: PathBuf,

    /// Section to list [default: the one that a model would be loaded from]
    #[arg(long, value_name = "NAME")]
    pub section: Option<String>,

    /// Also print the fingerprint of the section's tensors, which images and codes refer to; reads
    /// the whole section
    #[arg(long)]
    pub fingerprint: bool,

    #[command(flatten)]
    pub json: JsonArgs,
}
