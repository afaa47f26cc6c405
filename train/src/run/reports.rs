//! Log lines, status and warnings during a run.

use base::Progress;

use super::{Records, Trainer};
use crate::task::{Task, TrainingData as _};
use crate::{Observer, Result, summary};

impl Trainer<'_> {
    /// Logs and shows the averages since the last report.
    pub(super) fn report_step(
        &mut self,
        task: &impl Task,
        measured: Vec<(String, f64)>,
        records: &mut Records,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        records.skipped.update(task.data().skipped(), progress)?;
        let mut scalars = self.scalars(measured);
        scalars.extend(counted("left_out", records.skipped.count() as u64));
        progress.status(&summary::status(self.step, task.optimization().steps, &scalars));
        records.log.write(self.step, &scalars)
    }

    /// Validates the kept weights, the average if the recipe has one, and logs the metrics.
    pub(super) fn report_validation(
        &mut self,
        task: &mut impl Task,
        records: &mut Records,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let metrics = prefixed("validation", self.with_kept_weights(|| task.validate())?);
        if metrics.is_empty() {
            return Ok(());
        }
        progress.message(&summary::line(self.step, task.optimization().steps, &metrics));
        records.log.write(self.step, &metrics)
    }

    /// Calls the observer with the kept weights and logs its metrics; an error becomes a warning.
    pub(super) fn report_samples<T: Task>(
        &mut self,
        task: &T,
        observer: &mut dyn Observer<T>,
        records: &mut Records,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let step = self.step;
        match self.with_kept_weights(|| observer.observe(task, step)) {
            Ok(metrics) if metrics.is_empty() => Ok(()),
            Ok(metrics) => records.log.write(step, &prefixed("samples", metrics)),
            Err(e) => {
                progress.warn(&format!("no samples after step {step}: {e}"));
                Ok(())
            }
        }
    }

    /// Totals of the run, then the measured scalars.
    fn scalars(&mut self, measured: Vec<(String, f64)>) -> Vec<(String, f64)> {
        self.count_time();
        let mut all =
            vec![("seconds".into(), self.stats.seconds), ("samples".into(), self.stats.samples as f64)];
        all.extend(measured);
        all.extend(counted("skipped_steps", self.stats.skipped));
        all
    }
}

/// Names as in the log: `PREFIX/NAME`.
fn prefixed(prefix: &str, metrics: Vec<(&'static str, f64)>) -> Vec<(String, f64)> {
    metrics.into_iter().map(|(name, value)| (format!("{prefix}/{name}"), value)).collect()
}

/// A count, logged unless it is 0.
fn counted(name: &str, n: u64) -> Option<(String, f64)> {
    (n > 0).then(|| (name.to_owned(), n as f64))
}
