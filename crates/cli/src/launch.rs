//! `gen launch`.

use std::ffi::OsString;

use clap::Args;

/// Runs a verb as several processes on this machine, which share the work.
///
/// They are started with the variables of torchrun; across machines, use torchrun, mpirun or srun instead.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// Number of processes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub nproc: u16,

    /// Number of times that all processes are started again after one failed
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub max_restarts: u32,

    /// Verb and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "VERB")]
    pub command: Vec<OsString>,
}
