//! Result of a run: scores, and everything that the report of them shows.

use std::collections::BTreeMap;
use std::error::Error as StdError;

use crate::class_row::ClassRow;
use crate::job_error::JobError;
use crate::metric::{Distribution, ScoreInputs};
use crate::metrics::frechet::PUBLISHED_IMAGES;
use crate::metrics::spec;
use crate::plan::Plan;
use crate::reference_set::Reference;
use crate::score::{Score, ScoreContext};
use crate::state::RunState;
use crate::titles;
use crate::totals::RunTotals;
use crate::{Error, Result};

/// Facts of a run that its scores state.
pub struct ResultInputs<'a> {
    /// Its metrics.
    pub plan: &'a Plan,
    /// Images or statistics compared with.
    pub reference: Option<&'a Reference>,
    /// Resize method of the images.
    pub resize: &'a str,
    /// Conversion of the images to 8-bit RGB.
    pub image_conversion: &'a str,
}

/// Result of a run.
#[derive(Debug)]
pub struct EvalResult {
    /// Facts that all scores share.
    pub context: ScoreContext,
    /// Scores in the plan's order.
    pub scores: Vec<Score>,
    /// Scores of chunks and subsets by name.
    pub series: BTreeMap<String, Vec<f64>>,
    /// Metrics that could not be computed, and why.
    pub failed: BTreeMap<String, String>,
    /// Notes about the scores.
    pub warnings: Vec<String>,
    /// Counts.
    pub totals: RunTotals,
    /// Distributions to plot.
    pub distributions: Vec<Distribution>,
    /// Figures of each class in words.
    pub classes: BTreeMap<i64, Vec<String>>,
    /// A classifier's answers by class, the best first.
    pub class_agreement: Vec<ClassRow>,
}

impl EvalResult {
    /// All scores of a run. A metric that cannot be computed costs only its own.
    ///
    /// # Errors
    /// Returns an error if no image was read or no metric can be computed.
    pub fn new(run: &ResultInputs, state: RunState) -> Result<Self> {
        let context = context(run, &state.totals)?;
        let mut result = EvalResult {
            context: context.clone(),
            scores: vec![],
            series: BTreeMap::new(),
            failed: BTreeMap::new(),
            warnings: vec![],
            totals: RunTotals::default(),
            distributions: state.metrics.iter().filter_map(|(_, m)| m.distribution()).collect(),
            classes: classes(&state),
            class_agreement: state.metrics.iter().flat_map(|(_, m)| m.class_rows()).collect(),
        };
        let inputs = ScoreInputs {
            context: &context,
            options: &run.plan.options,
            samples: &state.samples,
            reference: &state.reference,
            stored: run.reference,
        };
        result.add_scores(run.plan, &state, &inputs)?;
        let failed = result.failed.iter().map(|(name, why)| format!("{name} cannot be had: {why}"));
        result.warnings = failed.chain(warnings(run.plan, &state)).collect();
        result.totals = state.totals;
        Ok(result)
    }

    fn add_scores(&mut self, plan: &Plan, state: &RunState, inputs: &ScoreInputs) -> Result<()> {
        let mut first = None;
        for (metric, metric_state) in state.metrics.iter().filter(|(metric, _)| plan.has(*metric)) {
            let found = metric_state.scores(inputs).and_then(|scores| {
                scores.iter().try_for_each(Score::check)?;
                Ok(scores)
            });
            match found {
                Ok(scores) => scores.into_iter().for_each(|score| self.add(score)),
                Err(error) => {
                    self.failed.insert(metric.name().to_owned(), root_cause(&error));
                    first.get_or_insert(Error::Compute { metric: metric.name(), error: Box::new(error) });
                }
            }
        }
        match first {
            Some(error) if self.scores.is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    /// Adds a score, once: precision and recall come together, as do density and coverage.
    fn add(&mut self, mut score: Score) {
        if self.scores.iter().all(|known| known.name != score.name) {
            if let Some(series) = score.series.take() {
                self.series.insert(score.label(), series);
            }
            self.scores.push(score);
        }
    }
}

fn root_cause(error: &Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn context(run: &ResultInputs, totals: &RunTotals) -> Result<ScoreContext> {
    if totals.samples.images == 0 {
        let first = totals.skipped.first().map(|skipped| skipped.error.clone());
        return Err(JobError::NoImages { first }.into());
    }
    // SHA-256 of the reference's file, else the digest of its images.
    let of_file = run.reference.and_then(|r| r.sha256.clone());
    let read = (totals.reference.images > 0).then_some(totals.reference.images);
    Ok(ScoreContext {
        samples: totals.samples.images,
        reference: read,
        reference_sha256: of_file.or_else(|| read.map(|_| totals.reference.digest.to_string())),
        resize: run.resize.to_owned(),
        image_conversion: run.image_conversion.to_owned(),
        incomplete: !totals.skipped.is_empty(),
    })
}

/// Figures of each class that has images.
fn classes(state: &RunState) -> BTreeMap<i64, Vec<String>> {
    let figures = |(&class, images): (&i64, &u64)| {
        let metrics = state.metrics.iter().filter_map(|(_, metric)| metric.class_figure(class));
        (class, [format!("{images} images")].into_iter().chain(metrics).collect())
    };
    state.totals.classes.iter().map(figures).collect()
}

fn warnings(plan: &Plan, state: &RunState) -> Vec<String> {
    let totals = &state.totals;
    let mut warnings: Vec<String> = biased(plan, state).into_iter().collect();
    for (what, n) in totals.samples.converted.iter().chain(&totals.reference.converted) {
        let images = if *n == 1 { " is" } else { "s are" };
        warnings.push(format!("{n} image{images} not 8-bit RGB: {what}"));
    }
    warnings.extend(state.metrics.iter().flat_map(|(_, metric)| metric.warnings()));
    warnings
}

/// A warning of distances of few images.
fn biased(plan: &Plan, state: &RunState) -> Option<String> {
    let n = state.totals.samples.images;
    let biased = plan.metrics.iter().filter(|&&m| spec(m).needs.biased);
    let label = |metric: &settings::Metric| {
        let features = plan.role(*metric).and_then(|role| state.samples.get(&role));
        titles::label(metric.name(), features.map(|f| f.id()))
    };
    let labels: Vec<String> = biased.map(label).collect();
    (!labels.is_empty() && n < PUBLISHED_IMAGES).then(|| {
        format!(
            "scored {} {}; {} {} biased below 50,000 and never comparable between different numbers of images",
            grouped(n),
            if n == 1 { "image" } else { "images" },
            labels.join(", "),
            if labels.len() == 1 { "is" } else { "are" }
        )
    })
}

/// 50000 → `50,000`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let parts: Vec<&str> =
        (0..digits.len()).rev().step_by(3).map(|end| &digits[end.saturating_sub(2)..=end]).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        assert_eq!([0, 12, 999, 1000, 1_281_167].map(grouped), ["0", "12", "999", "1,000", "1,281,167"]);
    }
}
