//! Running a recipe: each step is a `gen` command of its own, which anyone can repeat by hand, and whose result is
//! kept; a run that was stopped goes on with the first step that has none.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use base::resume::{Claim, ClaimError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::climb::{self, Tried};
use super::pieces::{Piece, list, pieces};
use super::steps::{Made, Step, all_measured, measured, reservations};
use super::verdict::{Figure, agrees, judge, table};
use super::{BenchmarkJob, Recipe, Task, steps};
use crate::context::{Context, Outcome, stop_on_signal};
use crate::failure::Failure;
use crate::files;

#[derive(Debug, Serialize)]
struct Report<'a> {
    recipe: &'a str,
    title: &'a str,
    source: &'a str,
    /// Whether the figures may stand beside the published ones.
    comparable: bool,
    /// Why not.
    reservations: Vec<String>,
    agrees: bool,
    figures: Vec<Figure>,
    /// Everything the run measured, by name; also what has no published value beside it.
    measured: BTreeMap<String, f64>,
    task: &'a Task,
    seeds: &'a str,
    /// The scales that were tried, where they were searched.
    search: Vec<Tried>,
    pieces: &'a [Piece],
    commands: Vec<String>,
    version: &'static str,
}

/// Checks the pieces, runs, compares, writes `report.json`. [`Outcome::Incomplete`] if a figure is outside its
/// tolerance, if the figures turn out not to be comparable (but for a dry run), or if the run was stopped.
pub fn run(job: &BenchmarkJob, context: &Context) -> anyhow::Result<Outcome> {
    let recipe = Recipe::find(&job.recipe)?;
    context.printer.note(&format!("{}\npublished in {}", recipe.title, recipe.source));
    if let Task::NotRunnable(task) = &recipe.task {
        return Err(Failure::new(format!("`{}` cannot be run: {}", job.recipe, task.why)).into());
    }
    let pieces = pieces(&recipe, &job.places)?;
    let missing = pieces.iter().filter(|p| p.found.is_none()).count();
    if missing > 0 {
        let (all, lines) = (pieces.len(), list(&pieces));
        return Err(Failure::new(format!("{missing} of {all} pieces are missing\n{lines}"))
            .hint("`--pieces DIR` names a folder that holds them; it may be given several times")
            .into());
    }
    context.printer.note(&list(&pieces));
    let mut runner =
        Runner { job, pieces: &pieces, recipe: &recipe, stop: stop_on_signal()?, commands: vec![] };
    let Some((made, search)) = runner.all(context)? else {
        let dir = job.output.display();
        context.printer.line(&format!("stopped; the same command goes on with what `{dir}` has"))?;
        return Ok(Outcome::Incomplete);
    };
    let mut reservations = reservations(&recipe, &made);
    let sound = reservations.is_empty();
    if let Some(n) = job.limit {
        reservations = vec![format!("a dry run on {n} images")];
    }
    let comparable = reservations.is_empty();
    let figures = judge(&recipe.expected, |metric| measured(&made, metric), comparable);
    let report = Report {
        recipe: &job.recipe,
        title: &recipe.title,
        source: &recipe.source,
        comparable,
        reservations,
        agrees: agrees(&figures) && (sound || job.limit.is_some()),
        figures,
        measured: all_measured(&made),
        task: &recipe.task,
        seeds: &recipe.seeds,
        search,
        pieces: &pieces,
        commands: runner.commands,
        version: env!("CARGO_PKG_VERSION"),
    };
    finish(&report, job, context)
}

fn finish(report: &Report, job: &BenchmarkJob, context: &Context) -> anyhow::Result<Outcome> {
    files::write(&job.output.join("report.json"), &serde_json::to_vec_pretty(report)?)?;
    if job.json {
        context.printer.json(report)?;
    } else {
        match report.figures.is_empty() {
            true => {
                context.printer.line("nothing was published to compare with; measured:")?;
                for (name, value) in &report.measured {
                    context.printer.line(&format!("{name:<16} {value:>10.4}"))?;
                }
            }
            false => context.printer.line(&table(&report.figures))?,
        }
        if let Some(best) = climb::best(&report.search) {
            context.printer.line(&format!("best guidance scale: {}", best.cfg))?;
        }
        for reservation in &report.reservations {
            context.printer.line(&format!("not comparable: {reservation}"))?;
        }
    }
    Ok(if report.agrees { Outcome::Done } else { Outcome::Incomplete })
}

/// Content of `order.json`: the run that a folder belongs to.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    recipe: Recipe,
    limit: Option<u64>,
}

struct Runner<'a> {
    job: &'a BenchmarkJob,
    pieces: &'a [Piece],
    recipe: &'a Recipe,
    stop: std::sync::Arc<AtomicBool>,
    commands: Vec<String>,
}

impl Runner<'_> {
    /// What the steps printed, and the scales that were tried; `None` if it was stopped.
    fn all(&mut self, context: &Context) -> anyhow::Result<Option<(Made, Vec<Tried>)>> {
        files::make_folder(&self.job.output)?;
        self.claim()?;
        let recipe = self.recipe;
        let Task::Generation(task) = &recipe.task else {
            return Ok(self.steps(None, &self.job.output.clone(), context)?.map(|made| (made, vec![])));
        };
        match (task.sampling.cfg, &task.search, self.job.search) {
            (Some(_), _, false) => {
                Ok(self.steps(task.sampling.cfg, &self.job.output.clone(), context)?.map(|m| (m, vec![])))
            }
            (None, _, false) => Err(Failure::new("the guidance scale of this figure was not published")
                .hint("`--search` finds it as the official script does")
                .into()),
            (_, None, true) => {
                Err(Failure::new("this recipe has no search").hint("leave `--search` out").into())
            }
            (_, Some(search), true) => self.climb(search.start, context),
        }
    }

    /// A folder belongs to one recipe and one number of images.
    fn claim(&self) -> anyhow::Result<()> {
        let mine = Order { recipe: self.recipe.clone(), limit: self.job.limit };
        let claim = Claim::new(self.job.output.join("order.json"), &mine);
        match claim.resumes() {
            Ok(true) => Ok(()),
            Ok(false) => Ok(claim.write()?),
            Err(ClaimError::Differs { .. } | ClaimError::Malformed { .. }) => {
                let message = format!("`{}` holds the run of another recipe", self.job.output.display());
                Err(Failure::new(message).hint("choose another `--output`").into())
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Tries one scale after the other; the result is that of the best.
    fn climb(&mut self, start: f64, context: &Context) -> anyhow::Result<Option<(Made, Vec<Tried>)>> {
        let mut tried: Vec<Tried> = vec![];
        let mut results: Vec<Made> = vec![];
        while let Some(cfg) = climb::next(&tried, start) {
            let dir = self.job.output.join(format!("cfg-{cfg}"));
            let Some(made) = self.steps(Some(cfg), &dir, context)? else { return Ok(None) };
            let fid = measured(&made, super::GFID);
            let fid = fid.ok_or_else(|| Failure::new("the evaluation printed no FID"))?;
            context.printer.note(&format!("guidance scale {cfg}: FID {fid:.3}"));
            tried.push(Tried { cfg, fid });
            results.push(made);
        }
        let best = climb::best(&tried).and_then(|b| tried.iter().position(|t| *t == b));
        let best = best.ok_or_else(|| Failure::new("no guidance scale was tried"))?;
        Ok(Some((results.swap_remove(best), tried)))
    }

    fn steps(&mut self, cfg: Option<f64>, dir: &Path, context: &Context) -> anyhow::Result<Option<Made>> {
        files::make_folder(dir)?;
        let mut made = Made::default();
        for step in steps::of(self.recipe, self.pieces, dir, cfg, self.job)? {
            let path = dir.join(format!("{}.json", step.name));
            let value = match kept(&path) {
                Some(value) => value,
                None => match self.run_step(&step, context)? {
                    Some(value) => {
                        files::write(&path, &serde_json::to_vec_pretty(&value)?)?;
                        value
                    }
                    None => return Ok(None),
                },
            };
            self.commands.push(step.line());
            made.insert(step.name, value);
        }
        Ok(Some(made))
    }

    /// Runs one command; its progress and errors go where ours go. `None` if it was stopped.
    fn run_step(&self, step: &Step, context: &Context) -> anyhow::Result<Option<Value>> {
        context.printer.note(&format!("$ {}", step.line()));
        let program = std::env::current_exe().context("finding this program")?;
        let mut command = Command::new(program);
        command.args(&step.args).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().with_context(|| format!("running `{}`", step.line()))?;
        if self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match output.status.code() {
            Some(0) => {
                let value = serde_json::from_slice(&output.stdout);
                value.with_context(|| format!("`{}` printed no JSON", step.line())).map(Some)
            }
            Some(1) => Err(Failure::new(format!("`{}` left something out", step.line()))
                .hint("a published figure is over all images; its messages above name what is damaged")
                .into()),
            code => {
                let how = code.map_or("was killed".to_owned(), |c| format!("failed with exit code {c}"));
                Err(Failure::new(format!("`{}` {how}", step.line())).into())
            }
        }
    }
}

/// What a finished step printed.
fn kept(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Older versions wrote settings that are silent as nulls.
    #[test]
    fn the_folder_of_an_older_version_is_resumed() {
        let recipe = Recipe::find("gigatok-bl+gpt-b").unwrap();
        let order = Order { recipe, limit: None };
        let mut stored = serde_json::to_value(&order).unwrap();
        stored["recipe"]["task"]["sampling"]["cfg"] = Value::Null;
        let read: Order = serde_json::from_value(stored).unwrap();
        assert_eq!(read, order);
    }
}
