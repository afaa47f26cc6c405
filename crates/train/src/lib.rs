//! Optimisation of any model here: losses, optimizers, schedules, moving averages, the loop, and resuming.
//! It knows neither metrics nor sampling.

mod directory;
pub mod discriminator;
pub mod ema;
mod error;
mod finite;
mod log;
pub mod losses;
mod meter;
pub mod optim;
pub mod peak;
pub mod probe;
pub mod recipe;
mod run;
pub mod schedule;
pub mod state;
mod summary;
mod task;
pub mod tasks;
pub mod tensorboard;

pub use ema::Ema;
pub use error::{Error, Result};
pub use log::Log;
pub use losses::Losses;
pub use optim::{AdamW, AdamWConfig};
pub use run::{Outcome, Run, train};
pub use schedule::Schedule;
pub use state::Saved;
pub use task::{DataFacts, Module, Phase, Task};
