//! Running a benchmark: each step is a `gen` command, which anyone can repeat by hand, and whose
//! result is kept; a run that was stopped resumes at the first step without one.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::Progress;
use base::resume::{Claim, ClaimError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifacts::{self, Artifact, list};
use crate::cfg_search::{self, Trial};
use crate::error::{Error, Result};
use crate::job::BenchmarkJob;
use crate::quantity::GFID;
use crate::report::{Finished, Report};
use crate::results::{StepResults, measured};
use crate::schema::{Benchmark, Task};
use crate::steps::{self, Step, make_folder, write};

/// End of a run without an error.
#[derive(Debug)]
pub enum Ending {
    /// A signal stopped it; the same command resumes it.
    Stopped,
    /// Everything was measured.
    Complete(Box<Report>),
}

/// Checks the artifacts, runs the steps, compares, and writes `report.json`. `stop` installs the
/// handler of signals.
///
/// # Errors
/// Returns an error if there is no such benchmark, if artifacts are missing, or if a step fails.
pub fn run(
    job: &BenchmarkJob,
    stop: impl FnOnce() -> io::Result<Arc<AtomicBool>>,
    progress: &mut dyn Progress,
) -> Result<Ending> {
    let benchmark = Benchmark::find(&job.benchmark)?;
    progress.message(&format!("{}\npublished in {}", benchmark.title, benchmark.source));
    if let Task::NotRunnable(task) = &benchmark.task {
        return Err(Error::NotRunnable { name: job.benchmark.clone(), why: task.why.clone() });
    }
    let artifacts = artifacts::locate(&benchmark, &job.dirs)?;
    let (all, list) = (artifacts.len(), list(&artifacts));
    let missing = artifacts.iter().filter(|artifact| artifact.found.is_none()).count();
    if missing > 0 {
        return Err(Error::Missing { missing, all, list });
    }
    progress.message(&list);
    let stop = stop().map_err(Error::io("cannot handle signals"))?;
    let mut runner =
        Runner { job, artifacts: &artifacts, benchmark: &benchmark, stop, commands: vec![], progress };
    let Some((results, search)) = runner.all()? else { return Ok(Ending::Stopped) };
    let commands = runner.commands;
    let report = Report::new(Finished { benchmark, artifacts, commands, results, search }, job);
    write(&job.output.join("report.json"), &serde_json::to_vec_pretty(&report)?)?;
    Ok(Ending::Complete(Box::new(report)))
}

/// Content of `order.json`: the run that a folder belongs to.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct RunSettings {
    #[serde(alias = "recipe")] // older versions
    benchmark: Benchmark,
    limit: Option<u64>,
}

struct Runner<'a> {
    job: &'a BenchmarkJob,
    artifacts: &'a [Artifact],
    benchmark: &'a Benchmark,
    stop: Arc<AtomicBool>,
    commands: Vec<String>,
    progress: &'a mut dyn Progress,
}

impl Runner<'_> {
    /// Output of the steps, and the scales that were tried; `None` if it was stopped.
    fn all(&mut self) -> Result<Option<(StepResults, Vec<Trial>)>> {
        make_folder(&self.job.output)?;
        self.claim()?;
        let benchmark = self.benchmark;
        let Task::Generation(task) = &benchmark.task else {
            return Ok(self.steps(None, &self.job.output.clone())?.map(|results| (results, vec![])));
        };
        match (task.sampling.cfg, &task.search, self.job.search) {
            (Some(_), _, false) => {
                Ok(self.steps(task.sampling.cfg, &self.job.output.clone())?.map(|m| (m, vec![])))
            }
            (None, _, false) => Err(Error::ScaleUnknown),
            (_, None, true) => Err(Error::NoSearch),
            (_, Some(search), true) => self.search(search.start),
        }
    }

    /// A folder belongs to one benchmark and one number of images.
    fn claim(&self) -> Result<()> {
        let mine = RunSettings { benchmark: self.benchmark.clone(), limit: self.job.limit };
        let claim = Claim::new(self.job.output.join("order.json"), &mine);
        match claim.resumes() {
            Ok(true) => Ok(()),
            Ok(false) => Ok(claim.write()?),
            Err(ClaimError::Differs { .. } | ClaimError::Malformed { .. }) => {
                Err(Error::OtherRun { dir: self.job.output.clone() })
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Tries one scale after the other; the result is that of the best.
    fn search(&mut self, start: f64) -> Result<Option<(StepResults, Vec<Trial>)>> {
        let mut trials: Vec<Trial> = vec![];
        let mut all: Vec<StepResults> = vec![];
        while let Some(cfg) = cfg_search::next(&trials, start) {
            let dir = self.job.output.join(format!("cfg-{cfg}"));
            let Some(results) = self.steps(Some(cfg), &dir)? else { return Ok(None) };
            let fid = measured(&results, GFID).ok_or(Error::NoFid)?;
            self.progress.message(&format!("guidance scale {cfg}: FID {fid:.3}"));
            trials.push(Trial { cfg, fid });
            all.push(results);
        }
        let best = cfg_search::best(&trials).and_then(|b| trials.iter().position(|t| *t == b));
        let best = best.ok_or(Error::NoScale)?;
        Ok(Some((all.swap_remove(best), trials)))
    }

    fn steps(&mut self, cfg: Option<f64>, dir: &Path) -> Result<Option<StepResults>> {
        make_folder(dir)?;
        let mut results = StepResults::default();
        for step in steps::of(self.benchmark, self.artifacts, dir, cfg, self.job)? {
            let path = dir.join(format!("{}.json", step.name));
            let value = match kept(&path) {
                Some(value) => value,
                None => match self.run_step(&step)? {
                    Some(value) => {
                        write(&path, &serde_json::to_vec_pretty(&value)?)?;
                        value
                    }
                    None => return Ok(None),
                },
            };
            self.commands.push(step.line());
            results.insert(step.name, value);
        }
        Ok(Some(results))
    }

    /// Runs one command; its progress and errors go to this program's stderr. `None` if it was
    /// stopped.
    fn run_step(&mut self, step: &Step) -> Result<Option<Value>> {
        let line = step.line();
        self.progress.message(&format!("$ {line}"));
        let mut command = Command::new(&self.job.program);
        command.args(&step.args).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().map_err(Error::io(format!("running `{line}`")))?;
        if self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match output.status.code() {
            Some(0) => {
                let value = serde_json::from_slice(&output.stdout);
                value.map(Some).map_err(|source| Error::NoJson { line, source })
            }
            Some(1) => Err(Error::StepIncomplete { line }),
            code => {
                let how = code.map_or("was killed".to_owned(), |c| format!("failed with exit code {c}"));
                Err(Error::StepFailed { line, how })
            }
        }
    }
}

/// Output of a finished step.
fn kept(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Older versions wrote unset settings as nulls, and other keys.
    #[test]
    fn the_folder_of_an_older_version_is_resumed() {
        let benchmark = Benchmark::find("gigatok-bl+gpt-b").unwrap();
        let settings = RunSettings { benchmark, limit: None };
        let mut stored = serde_json::to_value(&settings).unwrap();
        let mut benchmark = stored["benchmark"].take();
        benchmark["task"]["sampling"]["cfg"] = Value::Null;
        for expected in benchmark["expected"].as_array_mut().unwrap() {
            expected["because"] = expected.as_object_mut().unwrap().remove("reason").unwrap();
        }
        let stored = serde_json::json!({ "recipe": benchmark, "limit": null });
        let read: RunSettings = serde_json::from_value(stored).unwrap();
        assert_eq!(read, settings);
    }
}
