//! Several processes that work as one: rendezvous, exchange, and reports of failures.
//!
//! The processes meet at a key-value store, exchange hello messages, form a Gloo group
//! for exchange, and watch each other's heartbeats. A single process is a [`World`] of one, in
//! which every exchange is a no-op.

mod error;
mod health;
mod hello;
mod launcher;
mod world;

pub use error::Error;
pub use health::LIMIT_VARIABLE;
pub use launcher::{LaunchPlan, launch};
pub use world::{JoinSettings, World};

/// Result of an exchange between processes.
pub type Result<T> = std::result::Result<T, Error>;
