//! The program behind `gen`: does what was typed. Exit codes: 0 done, 1 done but something was skipped or a check
//! failed, 2 error.

mod code_files;
mod commands;
mod context;
mod failure;
mod files;
mod finite;
mod inputs;
mod printer;
mod recipes;
mod settings;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;

use crate::context::{Context, Outcome};

fn main() -> ExitCode {
    failure::install_panic_hook();
    let cli = cli::Cli::parse(); // its own usage errors exit with 2
    cli.max_pixels.into_iter().for_each(data::set_max_pixels);
    let printer = printer::Printer::new(cli.quiet);
    let context = Context { printer: printer.clone() };
    let result = catch_unwind(AssertUnwindSafe(|| commands::run(&cli.command, &context)))
        .unwrap_or_else(|payload| Err(failure::from_panic(payload.as_ref(), cli.command.batch_size())));
    printer.close();
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Incomplete) => ExitCode::from(1),
        // The reader of our output has seen enough (`gen inspect … | head`).
        Err(error) if failure::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            printer.error(&failure::render(&error));
            ExitCode::from(2)
        }
    }
}
