//! Values that a user chooses by a word: precision, device, metrics. It knows no libtorch, so that
//! arguments can be read and help be given before libtorch is loaded; `base` says what the words
//! mean for tensors.

mod device;
mod metric;
mod precision;

pub use device::DeviceChoice;
pub use metric::{Metric, ReferenceKind};
pub use precision::Precision;
