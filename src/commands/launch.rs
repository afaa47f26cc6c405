//! `gen launch`: a verb as several processes.

use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Parser as _;
use cli::launch::LaunchArgs;
use dist::{LaunchPlan, launch};

use crate::context::{Context, ExitStatus, stop_on_signal};
use crate::error::UserError;
use crate::resolve::device;

/// Starts the processes and waits for them.
pub fn run(args: &LaunchArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    check(args)?;
    let stop = stop_on_signal()?;
    let processes = usize::from(args.nproc);
    let plan = LaunchPlan {
        processes,
        max_restarts: args.max_restarts,
        threads: (device::physical_cores() / processes).max(1),
        stop: &stop,
    };
    let program = std::env::current_exe()?;
    let command = || {
        let mut command = Command::new(&program);
        command.arg0("gen").args(&args.command);
        command
    };
    match launch(&plan, command, |text| context.printer.warning(text))? {
        0 => Ok(ExitStatus::Done),
        1 => Ok(ExitStatus::Incomplete),
        code => {
            Err(UserError::new(format!("the processes ended with {code}; the first to fail said why above"))
                .into())
        }
    }
}

/// Refuses what each of the processes would refuse.
fn check(args: &LaunchArgs) -> anyhow::Result<()> {
    let line = std::iter::once("gen".into()).chain(args.command.iter().cloned());
    let cli = cli::Cli::try_parse_from(line).unwrap_or_else(|error| error.exit());
    match cli.command.one_process() {
        Some(work) if args.nproc > 1 => {
            let error = UserError::new(format!("{work} runs as one process"));
            Err(error.hint("leave `gen launch` out").into())
        }
        _ => Ok(()),
    }
}
