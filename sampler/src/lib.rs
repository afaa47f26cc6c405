//! Turning an autoregressive model into codes, and codes into images: guidance, filters, the decode loop and the
//! pipeline that joins a transformer with its tokenizer. It reads no files and knows no class names.

pub mod choose;
pub mod config;
pub mod decode;
mod error;
pub mod filter;
pub mod guidance;
pub mod pipeline;
pub mod recorded;
pub mod speculative;

pub use choose::Draw;
pub use config::{SamplingConfig, SamplingSettings};
pub use decode::Sampler;
pub use error::Error;
pub use guidance::{Guidance, GuidanceSchedule};
pub use pipeline::{Pipeline, resize};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
