//! What a user chooses by a word: precision and device. It knows no libtorch, so that arguments can be read and help be
//! given before libtorch is loaded; `base` says what the words mean for tensors.

mod device;
mod launch;
mod precision;

pub use device::DeviceChoice;
pub use launch::{Launch, LaunchError, Launcher};
pub use precision::Precision;
