//! Environment of a verb: destination of its results, exit status, signals, and reports of skipped
//! inputs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base::files::tsv_cell;
use data::{Dataset, LeftOut, count_left_out};
use dist::World;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::inputs::Skipped;
use crate::printer::Printer;

/// The argument that every verb takes besides its own.
#[derive(Debug)]
pub struct Context {
    /// Destination of results and progress. A clone of it is a `base::Progress`.
    pub printer: Printer,
    /// The processes that do the work, of which this is one.
    pub world: World,
}

impl Context {
    /// That of a single process.
    pub fn alone(printer: Printer) -> Self {
        Context { printer, world: World::default() }
    }
}

/// Results of a verb: a JSON document, or text.
pub trait Report: Serialize {
    /// The results in one or more lines, without a final newline.
    fn text(&self) -> String;
}

impl Context {
    /// Prints the results and ends the verb; `complete`: nothing was skipped, no check failed.
    ///
    /// # Errors
    /// Returns an error if stdout cannot be written.
    pub fn finish(&self, report: &impl Report, json: bool, complete: bool) -> anyhow::Result<ExitStatus> {
        match json {
            true => self.printer.json(report)?,
            false => self.printer.line(&report.text())?,
        }
        Ok(ExitStatus::of(complete))
    }
}

/// End of a verb that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Everything was done: exit code 0.
    Done,
    /// An input was skipped, or a check failed: exit code 1.
    Incomplete,
}

impl ExitStatus {
    /// [`ExitStatus::Done`] if everything was done.
    pub fn of(complete: bool) -> Self {
        if complete { ExitStatus::Done } else { ExitStatus::Incomplete }
    }
}

/// A flag that the first SIGINT or SIGTERM sets, for long jobs with an orderly end; a second signal
/// ends the program at once.
///
/// # Errors
/// Returns an error if the handlers cannot be installed.
pub fn stop_on_signal() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Opens a set of images and warns of files beside them that are not read.
///
/// # Errors
/// Returns an error if there is no set of images at `path`.
pub fn open_images(path: &Path, context: &Context) -> anyhow::Result<Arc<dyn Dataset>> {
    let images = data::open(path)?;
    report_left_out(context, path, images.left_out());
    Ok(images)
}

/// Warns about the files of a set that are not read: their number, the reason, and the first few
/// names.
pub fn report_left_out(context: &Context, path: &Path, files: &[LeftOut]) {
    const NAMED: usize = 3;
    let Some(count) = count_left_out(files) else { return };
    let names: Vec<String> = files.iter().take(NAMED).map(|f| format!("`{}`", tsv_cell(&f.name))).collect();
    let more = if files.len() > NAMED { ", …" } else { "" };
    context.printer.warning(&format!("`{}`: {count}: {}{more}", path.display(), names.join(", ")));
}

/// Warns of each skipped input and of their number.
pub fn report_skipped(context: &Context, skipped: &[Skipped]) {
    for s in skipped {
        let named = if s.error.contains(&s.input) { String::new() } else { format!("{}: ", s.input) };
        context.printer.warning(&format!("skipped: {named}{}", s.error));
    }
    if !skipped.is_empty() {
        let n = skipped.len();
        context.printer.warning(&format!("{n} input{} skipped", if n == 1 { " was" } else { "s were" }));
    }
}
