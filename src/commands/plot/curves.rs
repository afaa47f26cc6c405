//! `log.jsonl` → curves.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base::hint::nearest;
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
    /// Which run.
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

    fn terms(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().flat_map(|l| l.keys().map(String::as_str))
    }

    /// The values of a term; a line without the axis' own number takes the one before (validation has lines of its
    /// own).
    fn curve(&self, run: usize, term: &str, axis: Axis) -> anyhow::Result<Option<Curve>> {
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

/// The terms asked for, or all losses and validation figures, each with the curves of all runs.
pub fn panels(runs: &[Run], asked: &[String], axis: Axis) -> anyhow::Result<Vec<Panel>> {
    let mut known: Vec<&str> = vec![];
    for term in runs.iter().flat_map(Run::terms) {
        if !known.contains(&term) {
            known.push(term);
        }
    }
    let terms = if asked.is_empty() { usual(&known) } else { chosen(&known, asked)? };
    let panel = |term: &str| {
        let curves = runs.iter().enumerate().filter_map(|(i, r)| r.curve(i, term, axis).transpose());
        Ok(Panel { term: term.to_owned(), curves: curves.collect::<anyhow::Result<_>>()? })
    };
    let panels: Vec<Panel> = terms.into_iter().map(panel).collect::<anyhow::Result<_>>()?;
    let panels: Vec<Panel> =
        panels.into_iter().filter(|p| p.curves.iter().any(|c| !c.points.is_empty())).collect();
    match panels.is_empty() {
        true => Err(UserError::new("none of these terms has a finite value in these runs").into()),
        false => Ok(panels),
    }
}

/// All but what tells of time, rates and counts.
fn usual<'a>(known: &[&'a str]) -> Vec<&'a str> {
    const OTHERS: [&str; 11] = [
        "step",
        "seconds",
        "samples",
        "images_per_second",
        "codes_per_second",
        "mfu",
        "data_wait",
        "lr",
        "grad_norm",
        "left_out",
        "skipped_steps",
    ];
    let last = |t: &str| t.rsplit('/').next().unwrap_or(t).to_owned();
    known
        .iter()
        .copied()
        .filter(|t| !t.starts_with("seconds/") && !OTHERS.contains(&last(t).as_str()))
        .collect()
}

fn chosen<'a>(known: &[&'a str], asked: &[String]) -> anyhow::Result<Vec<&'a str>> {
    let mut terms = vec![];
    for pattern in asked {
        let before = terms.len();
        for term in known.iter().filter(|t| matches(pattern, t)) {
            if !terms.contains(term) {
                terms.push(*term);
            }
        }
        if terms.len() == before && !known.iter().any(|t| matches(pattern, t)) {
            let error = UserError::new(format!("no run has a term `{pattern}`"));
            let near = nearest(pattern, known.iter().copied(), 3);
            let list = if near.is_empty() { known.to_vec() } else { near };
            return Err(error.hint(format!("there are: {}", list.join(", "))).into());
        }
    }
    Ok(terms)
}

/// Whether a name is what a pattern with `*` describes.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// An exponential moving average that starts unbiased, as TensorBoard's.
pub fn smooth(points: &[(f64, f64)], weight: f64) -> Vec<(f64, f64)> {
    let (mut sum, mut norm) = (0.0, 0.0);
    let step = |&(x, y): &(f64, f64)| {
        sum = sum * weight + (1.0 - weight) * y;
        norm = norm * weight + (1.0 - weight);
        (x, sum / norm)
    };
    points.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_anchored_and_stars_are_wide() {
        for (pattern, name, is) in [
            ("loss", "loss", true),
            ("loss", "losses", false),
            ("validation/*", "validation/psnr", true),
            ("*/lr", "discriminator/lr", true),
            ("*/lr", "lr", false),
            ("v*/p*r", "validation/psnr", true),
            ("*", "anything", true),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern} {name}");
        }
    }

    #[test]
    fn smoothing_starts_at_the_first_value_and_lags() {
        let s = smooth(&[(0.0, 2.0), (1.0, 4.0)], 0.5);
        assert_eq!(s[0].1, 2.0);
        assert!((s[1].1 - (0.25 * 2.0 + 0.5 * 4.0) / 0.75).abs() < 1e-12);
        assert_eq!(smooth(&[(0.0, 2.0), (1.0, 4.0)], 0.0)[1].1, 4.0);
    }
}
