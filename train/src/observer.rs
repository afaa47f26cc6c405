//! Observers of a model in training.

use crate::Task;

/// Called every `every.samples` steps, for example to draw samples: `train` itself has neither
/// sampling nor metrics.
pub trait Observer<T: Task> {
    /// Receives the model with the kept weights: the average if the recipe has one. The scalars
    /// returned are logged under `samples/`.
    ///
    /// # Errors
    /// An error becomes a warning; training continues.
    fn observe(
        &mut self,
        task: &T,
        step: u64,
    ) -> Result<Vec<(&'static str, f64)>, Box<dyn std::error::Error + Send + Sync>>;
}

/// Observer that does nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Unobserved;

impl<T: Task> Observer<T> for Unobserved {
    fn observe(
        &mut self,
        _task: &T,
        _step: u64,
    ) -> Result<Vec<(&'static str, f64)>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(vec![])
    }
}
