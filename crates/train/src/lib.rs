//! Optimisation of any model here: losses, optimizers, schedules, moving averages, the loop, and resuming.
//! It knows neither metrics nor sampling.

pub mod discriminator;
pub mod ema;
mod error;
mod initial;
mod log;
pub mod losses;
mod meter;
pub mod optim;
pub mod probe;
pub mod recipe;
mod recompute;
mod run;
pub mod schedule;
pub mod state;
mod task;
pub mod tasks;

pub use ema::Ema;
pub use error::{Error, Result};
pub use initial::Adoption;
pub use log::Log;
pub use losses::Losses;
pub use optim::{AdamW, AdamWConfig};
pub use run::{Outcome, train};
pub use schedule::Schedule;
pub use state::Saved;
pub use task::{Common, Gradients, Module, Phase, Recipe, Task};
