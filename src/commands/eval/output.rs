//! Output of a report: warnings, page, and results.

use anyhow::Result;
use cli::eval::RunArgs;

use super::html;
use super::report::Report;
use crate::context::{Context, ExitStatus};
use crate::files;

/// Prints the warnings, writes the page if one is asked for, and prints the table or the JSON
/// document.
pub fn finish(report: &Report, args: &RunArgs, complete: bool, context: &Context) -> Result<ExitStatus> {
    for warning in &report.warnings {
        context.printer.warning(warning);
    }
    if let Some(path) = &args.report {
        files::write(path, html::page(report)?.as_bytes())?;
        context.printer.note(&format!("report: {}", path.display()));
    }
    context.finish(report, args.json.json, complete)
}
