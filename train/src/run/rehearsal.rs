//! Rehearsal of late steps at the start, so that a recipe does not fail after hours.

use super::Trainer;
use crate::task::{Task, TrainingData as _};
use crate::{Error, Result};

impl Trainer<'_> {
    /// Runs one micro-batch forward and backward as at the step at which the last phase begins, and
    /// as at the run's last one. Nothing is updated, no running state changes, and the position in
    /// the data is restored. Does nothing if every phase begins with the next step.
    ///
    /// # Errors
    /// Returns [`Error::Later`] if one of these steps fails.
    pub(super) fn rehearse(&self, task: &mut impl Task) -> Result<()> {
        let steps = task.optimization().steps;
        let last = self.phases.iter().map(|p| p.phase.start).filter(|&start| start <= steps).max();
        let Some(start) = last.filter(|&start| start > self.step + 1) else { return Ok(()) };
        let position = task.data().position()?;
        [start, steps].into_iter().try_for_each(|step| self.try_out(task, step))?;
        task.data_mut().restore(&position)
    }

    /// Runs one micro-batch as at one step.
    pub(super) fn try_out(&self, task: &mut impl Task, step: u64) -> Result<()> {
        let active: Vec<usize> =
            (0..self.phases.len()).filter(|&i| step >= self.phases[i].phase.start).collect();
        let batch = task.batch()?;
        match self.micro_batch(task, batch, &active, step, 0) {
            Ok(_) => Ok(()),
            Err(e) => Err(Error::Later { step, source: Box::new(e) }),
        }
    }
}
