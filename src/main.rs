//! The program behind `gen`: runs a command. Exit codes: 0 done, 1 done but something was skipped
//! or a check failed, 2 error.

mod code_files;
mod commands;
mod context;
mod error;
mod files;
mod inputs;
mod printer;
mod resolve;
mod share;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dist::{JoinSettings, World};
use settings::Launch;

use crate::context::{Context, ExitStatus};
use crate::error::UserError;

fn main() -> ExitCode {
    error::install_panic_hook();
    let cli = cli::Cli::parse(); // its own usage errors exit with 2
    cli.max_pixels.into_iter().for_each(data::set_max_pixels);
    match join(&cli) {
        Ok(context) => run(&cli, &context),
        Err(error) => {
            printer::Printer::new(cli.quiet).error(&error::render(&error));
            ExitCode::from(2)
        }
    }
}

/// This process alone, or one of those that a launcher started together.
fn join(cli: &cli::Cli) -> anyhow::Result<Context> {
    let launch = match &cli.command {
        cli::Command::Launch(_) => None, // begins a launch, within another one as well
        _ => Launch::from_env()?,
    };
    let Some(launch) = launch else {
        return Ok(Context::alone(printer::Printer::new(cli.quiet)));
    };
    if let Some(work) = cli.command.one_process() {
        let n = launch.world_size;
        let error = UserError::new(format!("{work} runs as one process, and a launcher started {n}"));
        return Err(error.hint("run it without the launcher").into());
    }
    let printer = printer::Printer::of_rank(cli.quiet, launch.rank, launch.world_size);
    let words = printer.clone();
    let settings = JoinSettings {
        program: resolve::device::program(),
        rendezvous: Duration::from_secs(300),
        exchange: Duration::from_secs(600),
        last_words: Box::new(move |text| words.error(&format!("error: {text}"))),
    };
    let world = World::join(launch, settings)?;
    Ok(Context { printer, world })
}

fn run(cli: &cli::Cli, context: &Context) -> ExitCode {
    let Context { printer, world } = context;
    let result = catch_unwind(AssertUnwindSafe(|| commands::run(&cli.command, context)))
        .unwrap_or_else(|payload| Err(error::from_panic(payload.as_ref(), cli.command.batch_size())));
    printer.close();
    match result {
        Ok(outcome) => {
            world.leave();
            ExitCode::from(u8::from(outcome == ExitStatus::Incomplete))
        }
        // The reader of our output has seen enough (`gen inspect … | head`).
        Err(error) if error::is_broken_pipe(&error) => {
            world.fail("the reader of the output has gone");
            world.end(0)
        }
        Err(error) => {
            if world.fail(&error.to_string()) {
                printer.error(&error::render(&error));
            }
            world.end(2)
        }
    }
}
