//! `gen bench`: how fast this machine does the work, and how much of what it could do that is.

mod evaluate;
mod job;
mod machine;
mod models;
mod report;
mod row;
mod timing;
mod train;
mod work;

use anyhow::{Context as _, Result};
use base::Precision;
use cli::bench::{BenchArgs, Work};
use tch::Device;

use self::job::Bench;
use self::machine::Machine;
use self::models::Subjects;
use self::report::Report;
use self::row::Row;
use crate::context::{Context, ExitStatus};
use crate::error::UserError;
use crate::resolve::device;

/// Times everything that was asked for, a row at a time.
pub fn run(args: &BenchArgs, context: &Context) -> Result<ExitStatus> {
    let device = device::resolve(&args.device)?;
    if args.cuda_graph {
        generate::check_cuda_graphs(device)?;
    }
    for &precision in &args.precision {
        generate::check_gpu(device, precision, args.gpu)?;
    }
    if args.work.contains(&Work::Train) {
        train::check_workers(args, device)?;
    }
    let before = args.compare.as_deref().map(Report::read).transpose()?;
    let subjects = Subjects::find(args)?;
    let machine = Machine::measure(device);
    context.printer.line(&machine.describe())?;
    context.printer.line(&subjects.describe())?;
    context.printer.line(&row::head(before.is_some()))?;
    let bench = Bench { args, subjects: &subjects, machine: &machine, device };
    let mut rows: Vec<Row> = vec![];
    for &work in &args.work {
        for &precision in args.precision.iter().filter(|p| knows(work, **p, device)) {
            let mut add = |row: Row| -> Result<()> {
                let earlier = before.as_ref().and_then(|report| report.like(&row));
                context.printer.line(&row.line(before.is_some(), earlier))?;
                rows.push(row);
                Ok(())
            };
            bench.run(work, precision, &mut add)?;
        }
    }
    if rows.is_empty() {
        return Err(UserError::new("no work of `--work` can be done in a kind of `--precision`").into());
    }
    let report = Report { version: env!("CARGO_PKG_VERSION").into(), machine, rows };
    context.printer.line(&serde_json::to_string(&report).context("the report as JSON")?)?;
    Ok(ExitStatus::Done)
}

/// Whether a work can be done in a precision.
fn knows(work: Work, precision: Precision, device: Device) -> bool {
    match precision {
        Precision::Int8 => work == Work::Sample,
        Precision::Fp16 => work != Work::Eval && device != Device::Cpu,
        Precision::Fp32 => true,
        Precision::Bf16 => work != Work::Eval,
    }
}
