//! Log lines, status and warnings during a run.

use base::Progress;
use data::LeftOut;

use super::{Records, Trainer};
use crate::share::Share;
use crate::task::{Task, TrainingData as _};
use crate::{Observer, Result, summary};

impl Trainer<'_> {
    /// Logs and shows the averages since the last report.
    pub(super) fn report_step(
        &mut self,
        task: &impl Task,
        measured: Vec<(String, f64)>,
        records: &mut Option<Records>,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        self.update_skipped(task, records, progress)?;
        let mut scalars = self.scalars(measured);
        let Some(records) = records else { return Ok(()) };
        scalars.extend(counted("left_out", records.skipped.count() as u64));
        progress.status(&summary::status(self.step, task.optimization().steps, &scalars));
        records.log.write(self.step, &scalars)
    }

    /// Adds the files that the processes skipped so far to the list.
    pub(super) fn update_skipped(
        &self,
        task: &impl Task,
        records: &mut Option<Records>,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let own: Vec<(String, String)> =
            task.data().skipped().into_iter().map(|file| (file.name, file.reason)).collect();
        let all = self.world().gather_values(&own)?.concat();
        let all = all.into_iter().map(|(name, reason)| LeftOut { name, reason }).collect();
        records.as_mut().map_or(Ok(()), |records| records.skipped.update(all, progress))
    }

    /// Validates the kept weights, the average if the recipe has one, and logs the metrics.
    pub(super) fn report_validation(
        &mut self,
        task: &mut impl Task,
        records: &mut Option<Records>,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        self.world().note(&format!("validation after step {}", self.step));
        let share = Share::new(self.world());
        let metrics = prefixed("validation", self.with_kept_weights(|| task.validate(share))?);
        let Some(records) = records.as_mut().filter(|_| !metrics.is_empty()) else { return Ok(()) };
        progress.message(&summary::line(self.step, task.optimization().steps, &metrics));
        records.log.write(self.step, &metrics)
    }

    /// Calls the observer with the kept weights and logs its metrics; an error becomes a warning.
    pub(super) fn report_samples<T: Task>(
        &mut self,
        task: &T,
        observer: &mut dyn Observer<T>,
        records: &mut Option<Records>,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let (step, first) = (self.step, records.is_some());
        self.world().note(&format!("samples after step {step}"));
        let seen = self.with_kept_weights(|| Ok(first.then(|| observer.observe(task, step))))?;
        let (Some(seen), Some(records)) = (seen, records) else { return Ok(()) };
        match seen {
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
