//! Optimisation of any model here: losses, optimizers, schedules, moving averages, the loop, and resuming.
//! It knows neither metrics nor sampling.

mod directory;
pub mod discriminator;
pub mod ema;
mod error;
mod files;
mod finite;
mod initial;
mod log;
pub mod losses;
mod meter;
mod observer;
pub mod optim;
pub mod peak;
mod plan;
pub mod probe;
pub mod recipe;
mod recompute;
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
pub use observer::{Observer, Unobserved};
pub use optim::{AdamW, AdamWConfig};
pub use plan::Plan;
pub use run::{Outcome, Run, rehearse, train, train_observed};
pub use schedule::Schedule;
pub use state::Saved;
pub use task::{Adoption, Common, DataFacts, Gradients, Module, Phase, Recipe, Task};
pub use tasks::images_per_second;
