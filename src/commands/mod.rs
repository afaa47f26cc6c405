//! One file a verb.

mod doctor;
mod train;
mod train_ar;
mod train_tokenizer;

use crate::cli::Command;
use crate::printer::Printer;

/// What every verb is given.
#[derive(Debug)]
pub struct Context {
    /// Where results and progress go. A clone of it is a `base::Progress`.
    pub printer: Printer,
}

/// How a verb that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done: exit code 0.
    Done,
    /// Something was skipped, or a check failed: exit code 1.
    Incomplete,
}

/// Runs the verb that was typed.
pub fn run(command: &Command, context: &Context) -> anyhow::Result<Outcome> {
    match command {
        Command::Doctor(args) => doctor::run(args, context),
        Command::TrainAr(args) => train_ar::run(args, context),
        Command::TrainTokenizer(args) => train_tokenizer::run(args, context),
    }
}
