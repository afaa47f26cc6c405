//! Values that users choose: precision, device, models, sampling. They know no libtorch, so that
//! arguments can be read and help be given before libtorch is loaded. `cli` flattens those that are
//! options of several verbs, whose doc comments are the help texts; `base` says what the words mean
//! for tensors.

mod device;
mod gpu;
mod model;
mod precision;
mod sampling;

pub use device::DeviceChoice;
pub use gpu::GpuOptions;
pub use model::ModelChoice;
pub use precision::Precision;
pub use sampling::{Rng, SamplingSettings};
