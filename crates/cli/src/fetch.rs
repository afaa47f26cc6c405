//! `gen fetch`.

use clap::Args;

use crate::{JsonArgs, ModelsDirArgs};

/// Arguments of `gen fetch`.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// What to fetch, by name [default: nothing; the known files are listed]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    #[command(flatten)]
    pub models: ModelsDirArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}
