//! `gen fetch`.

use clap::Args;

use crate::{JsonArgs, WeightsDirArgs};

/// Arguments of `gen fetch`.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Names of the files to download [default: none; list the known files]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    #[command(flatten)]
    pub weights_folder: WeightsDirArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}
