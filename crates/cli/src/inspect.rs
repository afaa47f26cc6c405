//! `gen inspect`.

use std::path::PathBuf;

use clap::Args;

use crate::JsonArgs;

/// Arguments of `gen inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A checkpoint (.pt, .safetensors, or the index of its shards), a config, a folder of codes or its index,
    /// or a model's directory
    #[arg(value_name = "FILE|DIR")]
    pub path: PathBuf,

    /// List this section's tensors [default: those of the section that a model would be loaded from]
    #[arg(long, value_name = "NAME")]
    pub section: Option<String>,

    /// Also tell the fingerprint of those tensors, which pictures and codes name; reads the whole section
    #[arg(long)]
    pub fingerprint: bool,

    #[command(flatten)]
    pub json: JsonArgs,
}
