//! One file a verb.

mod bench;
mod convert;
mod decode;
mod doctor;
mod encode;
mod eval;
mod extract;
mod extract_text;
mod features;
mod fetch;
mod inspect;
mod logits;
mod plot;
mod probe;
mod recipe;
mod reconstruct;
pub mod sample;
mod train;
mod train_ar;
mod train_features;
mod train_samples;
mod train_tokenizer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base::files::tsv_cell;
use cli::Command;
use data::{Dataset, LeftOut, count_left_out};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::inputs::Skipped;
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
        Command::Sample(args) => sample::run(args, context),
        Command::Bench(args) => bench::run(args, context),
        Command::Convert(args) => convert::run(args, context),
        Command::Inspect(args) => inspect::run(args, context),
        Command::Decode(args) => decode::run(args, context),
        Command::Doctor(args) => doctor::run(args, context),
        Command::TrainAr(args) => train_ar::run(args, context),
        Command::TrainFeatures(args) => train_features::run(args, context),
        Command::TrainTokenizer(args) => train_tokenizer::run(args, context),
        Command::Eval(args) => eval::run(args, context),
        Command::Encode(args) => encode::run(args, context),
        Command::Extract(args) => extract::run(args, context),
        Command::Logits(args) => logits::run(args, context),
        Command::Features(args) => features::run(args, context),
        Command::Fetch(args) => fetch::run(args, context),
        Command::Reconstruct(args) => reconstruct::run(args, context),
        Command::Plot(args) => plot::run(args, context),
        Command::Probe(args) => probe::run(args, context),
    }
}

/// True from the first SIGINT or SIGTERM on, for long jobs that end in good order; a second one ends the program at
/// once.
pub fn stop_on_signal() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Opens a set of images, and says what lies beside them and is not read.
fn open_images(path: &Path, context: &Context) -> anyhow::Result<Arc<dyn Dataset>> {
    let images = data::open(path)?;
    report_left_out(context, path, images.left_out());
    Ok(images)
}

/// Says how many files of a set are left out and why, with some of their names.
fn report_left_out(context: &Context, path: &Path, files: &[LeftOut]) {
    const NAMED: usize = 3;
    let Some(count) = count_left_out(files) else { return };
    let names: Vec<String> = files.iter().take(NAMED).map(|f| format!("`{}`", tsv_cell(&f.name))).collect();
    let more = if files.len() > NAMED { ", …" } else { "" };
    context.printer.warning(&format!("`{}`: {count}: {}{more}", path.display(), names.join(", ")));
}

/// Names what was left out, and counts it.
fn report_skipped(context: &Context, skipped: &[Skipped]) {
    for s in skipped {
        let named = if s.error.contains(&s.input) { String::new() } else { format!("{}: ", s.input) };
        context.printer.warning(&format!("skipped: {named}{}", s.error));
    }
    if !skipped.is_empty() {
        let n = skipped.len();
        context.printer.warning(&format!("{n} input{} skipped", if n == 1 { " was" } else { "s were" }));
    }
}
