//! Training of every model here: losses, optimizers, schedules, moving averages, the loop, and
//! resuming. Metrics and sampling belong to other crates.

mod checkpoint;
mod cost;
pub mod discriminator;
pub mod ema;
mod error;
mod files;
mod init_from;
mod log;
pub mod losses;
mod manifest;
mod nan_check;
mod observer;
pub mod optim;
pub mod peak;
pub mod probe;
pub mod recipe;
mod recompute;
mod retention;
mod run;
mod run_dir;
pub mod schedule;
mod shards;
mod share;
mod step_timer;
mod summary;
mod task;
pub mod tasks;
pub mod tensorboard;

pub use checkpoint::{RunStats, TrainCheckpoint, check_unused, has_state};
pub use cost::RunCost;
pub use ema::Ema;
pub use error::{Error, Result};
pub use log::Log;
pub use losses::Losses;
pub use observer::{Observer, Unobserved};
pub use optim::{AdamW, AdamWConfig};
pub use recipe::{Common, CommonKeys, Recipe};
pub use run::{Outcome, Run, rehearse, train, train_observed};
pub use schedule::Schedule;
pub use share::Share;
pub use task::{DataFacts, Gradients, InitPolicy, Module, Phase, Task, TrainingData};
pub use tasks::images_per_second;
