//! The job of `gen bench`, except the kind of work.

use anyhow::Result;
use cli::bench::BenchArgs;
use tch::Device;

use super::machine::Machine;
use super::models::Subjects;
use super::row::Row;

/// Subjects and repeats of all works.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// Batch sizes, guidance scales, repeats.
    pub args: &'a BenchArgs,
    /// The networks.
    pub subjects: &'a Subjects,
    /// The hardware ceiling.
    pub machine: &'a Machine,
    /// Their device.
    pub device: Device,
}

/// Destination of finished rows.
pub type Add<'a> = &'a mut dyn FnMut(Row) -> Result<()>;
