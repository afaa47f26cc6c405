//! `gen plot`: curves of training runs.

mod axis;
mod curves;
mod draw;
mod points;
mod terms;
mod write;

use std::path::Path;

use anyhow::Context as _;
use cli::plot::PlotArgs;

use self::curves::{Panel, Run};
use crate::context::{Context, ExitStatus};
use crate::error::UserError;

/// Runs the verb.
pub fn run(args: &PlotArgs, context: &Context) -> anyhow::Result<ExitStatus> {
    let format = write::Format::of(&args.output)?;
    if !args.names.is_empty() && args.names.len() != args.runs.len() {
        let (names, runs) = (args.names.len(), args.runs.len());
        return Err(UserError::new(format!("{names} names for {runs} runs; give one for each")).into());
    }
    let runs = args.runs.iter().enumerate().map(|(i, path)| {
        let name = args.names.get(i).cloned().unwrap_or_else(|| name_of(path));
        Run::read(path, name)
    });
    let runs: Vec<Run> = runs.collect::<anyhow::Result<_>>()?;
    for run in runs.iter().filter(|r| r.torn > 0) {
        context.printer.warning(&format!("{}: {} lines could not be read", run.name, run.torn));
    }
    let panels = terms::panels(&runs, &args.terms, args.x)?;
    report_gaps(&panels, args, context);
    let svg = draw::svg(&panels, &runs, args)?;
    write::write(&args.output, format, &svg, &runs)
        .with_context(|| format!("cannot write `{}`", args.output.display()))?;
    let terms = panels.len();
    context.printer.line(&format!(
        "{terms} term{} of {} run{} in {}",
        if terms == 1 { "" } else { "s" },
        runs.len(),
        if runs.len() == 1 { "" } else { "s" },
        args.output.display()
    ))?;
    Ok(ExitStatus::Done)
}

/// Warns about values that the plot cannot show.
fn report_gaps(panels: &[Panel], args: &PlotArgs, context: &Context) {
    for panel in panels {
        let missing = panel.curves.iter().map(|c| c.missing).sum::<usize>();
        if missing > 0 {
            context
                .printer
                .warning(&format!("{}: {missing} values are not numbers and leave gaps", panel.term));
        }
        let below = |c: &curves::Curve| c.points.iter().flatten().filter(|p| p.1 <= 0.0).count();
        let hidden: usize = panel.curves.iter().map(below).sum();
        if args.log && hidden > 0 {
            let term = &panel.term;
            context
                .printer
                .warning(&format!("{term}: {hidden} values are not above 0 and have no logarithm"));
        }
    }
}

/// Name of the folder, the most distinctive one for runs side by side.
fn name_of(path: &Path) -> String {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    absolute.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}
