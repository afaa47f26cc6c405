//! `gen eval --benchmark`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base::DeviceChoice;
use benchmarks::{BenchmarkJob, Ending, Report, SearchDirs};
use cli::benchmark::BenchmarkArgs;

use crate::context::{self, Context, ExitStatus, stop_on_signal};

/// Measures a published figure again. Ends with [`ExitStatus::Incomplete`] if it does not agree, or
/// if the run was stopped.
pub fn run(
    benchmark: &str,
    args: &BenchmarkArgs,
    device: DeviceChoice,
    json: bool,
    context: &Context,
) -> Result<ExitStatus> {
    let job = job(benchmark, args, device)?;
    match benchmarks::run(&job, stop_on_signal, &mut context.printer.clone())? {
        Ending::Stopped => {
            let dir = job.output.display();
            context.printer.line(&format!("stopped; the same command goes on with what `{dir}` has"))?;
            Ok(ExitStatus::Incomplete)
        }
        Ending::Complete(report) => context.finish(report.as_ref(), json, report.agrees()),
    }
}

fn job(benchmark: &str, args: &BenchmarkArgs, device: DeviceChoice) -> Result<BenchmarkJob> {
    let name = Path::new(benchmark).file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".yaml").unwrap_or(&name);
    Ok(BenchmarkJob {
        benchmark: benchmark.to_owned(),
        dirs: SearchDirs {
            folders: match args.artifacts.is_empty() {
                true => vec![PathBuf::from(".")],
                false => args.artifacts.clone(),
            },
            data: args.data.clone(),
            train_data: args.train_data.clone(),
        },
        output: args.work.clone().unwrap_or_else(|| Path::new("benchmarks").join(name)),
        limit: args.limit,
        search: args.search,
        device: device.to_string(),
        program: std::env::current_exe().context("finding this program")?,
    })
}

impl context::Report for Report {
    fn text(&self) -> String {
        self.text()
    }
}
