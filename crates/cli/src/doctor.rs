//! `gen doctor`.

use clap::Args;

use crate::{DeviceArgs, JsonArgs};

/// Arguments of `gen doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}
