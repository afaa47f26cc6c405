//! What a caller wants to see of a model while it is trained.

use crate::Task;

/// Called every `every.samples` steps, such as to draw samples: `train` knows neither sampling nor metrics.
pub trait Observer<T: Task> {
    /// Looks at the model with the weights that are kept, the average where there is one. The figures are logged under
    /// `samples/`.
    ///
    /// # Errors
    /// A reason why nothing came of it; training goes on.
    fn observe(
        &mut self,
        task: &T,
        step: u64,
    ) -> Result<Vec<(&'static str, f64)>, Box<dyn std::error::Error + Send + Sync>>;
}

/// Sees nothing.
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
