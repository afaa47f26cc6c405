//! Plain values of a user's choices: precision, device, metrics; and launches of several processes.
//! Without libtorch, so that arguments are parsed and help is printed before libtorch is loaded;
//! `base` maps them to tensors' dtypes and devices.

mod device;
mod launch;
mod metric;
mod precision;

pub use device::DeviceChoice;
pub use launch::{Launch, LaunchError, Launcher};
pub use metric::{Metric, ReferenceKind};
pub use precision::Precision;
