//! Report of a run.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cli::sample::SampleArgs;
use data::Prompts;
use generate::output::{NpzRun, Outputs, RunResult, Written};
use generate::{Order, Run, RunSettings, Targets};
use serde::Serialize;

use crate::context::{Context, ExitStatus};

#[derive(Debug, Serialize)]
struct Report<'a> {
    /// False when a signal stopped it.
    complete: bool,
    images: Vec<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grid: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    npz: Option<PathBuf>,
    settings: &'a RunSettings,
    seconds: f64,
    images_per_second: f64,
    /// Codes that a forward pass gave on average, in speculative decoding.
    #[serde(skip_serializing_if = "Option::is_none")]
    codes_per_pass: Option<f64>,
}

/// Says how a file of prompts was read.
pub fn prompts(file: &Path, prompts: &Prompts, context: &Context) {
    let shown = file.display();
    if let Some(column) = &prompts.column {
        context.printer.note(&format!("`{shown}`: read as a table, its prompts from the column `{column}`"));
    }
    if prompts.blank > 0 {
        let (blank, lines) = (prompts.blank, if prompts.blank == 1 { "line" } else { "lines" });
        context.printer.note(&format!("`{shown}`: {blank} blank {lines} left out"));
    }
}

/// Completes the outputs and prints the report.
pub fn finish(
    args: &SampleArgs,
    context: &Context,
    run: &Run,
    targets: &Targets,
    outputs: Outputs,
    made: RunResult,
) -> Result<ExitStatus> {
    let grid = match &outputs.folder {
        Some(folder) => {
            folder.list_prompts()?;
            folder.finish(run.settings(), columns(targets))?
        }
        None => None,
    };
    let report = Report {
        complete: made.complete,
        images: outputs.folder.map(|f| f.written).unwrap_or_default(),
        grid,
        npz: outputs.npz.filter(|_| made.complete).map(NpzRun::finish).transpose()?,
        settings: run.settings(),
        seconds: made.seconds,
        images_per_second: made.images as f64 / made.seconds.max(1e-9),
        codes_per_pass: args.speculative.map(|_| run.codes_per_pass()),
    };
    if !made.complete {
        let resume = if args.npz.is_some() { "; the same command goes on" } else { "" };
        context.printer.warning(&format!("stopped after {} images{resume}", made.images));
    }
    match args.json.json {
        true => context.printer.json(&report)?,
        false => list(&report, context)?,
    }
    Ok(ExitStatus::of(made.complete))
}

/// The files, the first few by name.
fn list(report: &Report, context: &Context) -> Result<()> {
    const MOST_LISTED: usize = 16;
    for image in report.images.iter().take(MOST_LISTED) {
        context.printer.line(&image.path().display().to_string())?;
    }
    if report.images.len() > MOST_LISTED {
        context.printer.line(&format!("… and {} more", report.images.len() - MOST_LISTED))?;
    }
    for path in report.grid.iter().chain(&report.npz) {
        context.printer.line(&path.display().to_string())?;
    }
    Ok(())
}

/// Pictures in a row of the contact sheet. Images of several classes or prompts have a row each;
/// otherwise the sheet is about a square.
fn columns(targets: &Targets) -> usize {
    match targets.order {
        Order::Each(num) if targets.conditions.len() > 1 && (2..=16).contains(&num) => num as usize,
        _ => (targets.len().min(256) as f64).sqrt().ceil() as usize,
    }
}
