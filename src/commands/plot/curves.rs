//! `log.jsonl` → curves.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cli::plot::Axis;
use serde_json::{Map, Value};

use crate::error::UserError;

/// A run's log.
#[derive(Debug)]
pub struct Run {
    /// Its name in the legend.
    pub name: String,
    /// Lines that are no JSON objects; the last one of a killed run may be.
    pub torn: usize,
    path: PathBuf,
    lines: Vec<Map<String, Value>>,
}

/// One term of every run that has it.
#[derive(Debug)]
pub struct Panel {
    /// Its name in the log.
    pub term: String,
    /// A curve a run, in the order of the runs that have the term.
    pub curves: Vec<Curve>,
}

/// One term of one run.
#[derive(Debug)]
pub struct Curve {
    /// Index of the run.
    pub run: usize,
    /// Stretches of (x, value) between gaps, where a value was not finite.
    pub points: Vec<Vec<(f64, f64)>>,
    /// Values that were not finite.
    pub missing: usize,
}

impl Run {
    /// Reads a run's directory or its log.
    pub fn read(path: &Path, name: String) -> anyhow::Result<Run> {
        let path = if path.is_dir() { path.join("log.jsonl") } else { path.to_owned() };
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read the log of a run, `{}`", path.display()))?;
        let parsed: Vec<_> =
            text.lines().map(|l| serde_json::from_str::<Map<String, Value>>(l).ok()).collect();
        let total = parsed.len();
        let lines: Vec<_> = parsed.into_iter().flatten().filter(|l| l.contains_key("step")).collect();
        if lines.is_empty() {
            let error = UserError::new(format!("`{}` has no line of a training log", path.display()));
            return Err(error.hint("a run's first line comes after `every.log` steps").into());
        }
        Ok(Run { name, torn: total - lines.len(), path, lines })
    }

    /// Names of all values, with repetitions.
    pub fn terms(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().flat_map(|l| l.keys().map(String::as_str))
    }

    /// Values of a term; a line without the axis's own number takes the previous one (validation
    /// has lines of its own).
    pub fn curve(&self, run: usize, term: &str, axis: Axis) -> anyhow::Result<Option<Curve>> {
        let key = axis_key(axis);
        let mut curve = Curve { run, points: vec![vec![]], missing: 0 };
        let (mut at, mut found) = (None, false);
        for line in &self.lines {
            at = line.get(key).and_then(Value::as_f64).or(at);
            let Some(value) = line.get(term) else { continue };
            found = true;
            let Some(x) = at else {
                let path = self.path.display();
                return Err(UserError::new(format!("`{path}` has no `{key}`"))
                    .hint("try `--x steps`")
                    .into());
            };
            match value.as_f64() {
                Some(y) => curve.points.last_mut().expect("there is a stretch").push((x, y)),
                None => {
                    curve.missing += 1;
                    curve.points.push(vec![]);
                }
            }
        }
        curve.points.retain(|stretch| !stretch.is_empty());
        Ok(found.then_some(curve))
    }
}

fn axis_key(axis: Axis) -> &'static str {
    match axis {
        Axis::Steps => "step",
        Axis::Time => "seconds",
        Axis::Samples => "samples",
    }
}
