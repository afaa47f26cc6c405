//! Sampling from an autoregressive model: guidance, filters, decode modes, and the pipeline of a
//! transformer and its tokenizer. Reads no files and knows no class names.

mod batch;
pub mod config;
mod cuda_graph;
mod error;
pub mod filter;
pub mod guidance;
pub mod pipeline;
mod row_draw;
pub mod sample;
pub mod sampler;
pub mod slots;
pub mod speculative;
mod stepwise;

pub use config::SamplingConfig;
pub use error::{Error, Result};
pub use filter::Filter;
pub use guidance::{Guidance, GuidanceSchedule};
pub use pipeline::{Pipeline, resize};
pub use sample::RandomSource;
pub use sampler::{DecodeMode, Generation, Sampler};
pub use settings::SamplingSettings;
pub use slots::{SlotImage, SlotNumber, Slots};
