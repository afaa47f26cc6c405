//! Plain values of a user's choices: precision, device, metrics; and launches of several processes.
//! Without libtorch, so that arguments are parsed and help is printed before libtorch is loaded;
//! `base` maps them to tensors' dtypes and devices.

mod device;
mod gpu;
mod launch;
mod metric;
mod model;
mod precision;
mod sampling;

pub use device::DeviceChoice;
pub use gpu::GpuOptions;
pub use launch::{Launch, LaunchError, Launcher};
pub use metric::{Metric, ReferenceKind};
pub use model::ModelChoice;
pub use precision::Precision;
pub use sampling::{GUIDANCE_SCHEDULES, Rng, SamplingSettings};
