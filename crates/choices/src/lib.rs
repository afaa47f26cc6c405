//! Plain values of a user's choices: precision and device. Without libtorch, so that arguments are
//! parsed and help is printed before libtorch is loaded; `base` maps them to tensors' dtypes and
//! devices.

mod device;
mod launch;
mod precision;

pub use device::DeviceChoice;
pub use launch::{Launch, LaunchError, Launcher};
pub use precision::Precision;
