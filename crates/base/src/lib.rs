//! The foundation of the other crates: values whose range is part of their type, precision,
//! devices, counter-based randomness, variables, configuration files, NumPy archives, and
//! files written whole or not at all. Independent of any model.

pub mod carried;
pub mod config;
pub mod cost;
pub mod device;
pub mod files;
pub mod finite;
pub mod hash;
pub mod hint;
pub mod image;
pub mod npz;
pub mod precision;
pub mod progress;
pub mod resume;
pub mod rng;
pub mod skipped;
pub mod spans;
pub mod synthetic;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod types;
pub mod vars;

pub use hint::Hint;
pub use libtorch_ext::random;
pub use precision::TensorKind;
pub use progress::{Progress, Silent};
pub use rng::SampleStream;
pub use settings::{DeviceChoice, Precision};
pub use skipped::Skipped;
pub use spans::spans;
pub use types::{Codes, Images, ImagesU8, TypeError};
pub use vars::{Build, Init, Scope, Vars};

/// Whether a forward pass trains (dropout, condition drop, batch statistics) or evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Training: dropout and condition drop are on.
    Train,
    /// Evaluation: deterministic.
    Eval,
}

impl Mode {
    /// True while training.
    pub fn is_train(self) -> bool {
        self == Mode::Train
    }
}
