//! Images on request: models that stay loaded, and a queue of images that share every step of the
//! transformer (continuous batching). No HTTP, and no async runtime.
//!
//! An image is, byte for byte, the image of `gen sample` with the same model, condition, settings,
//! seed and number, whichever others are made at the time; on the CPU exactly, on a GPU up to the
//! backend's dependence on the batch.
//!
//! [`Engine::submit`] checks a request and queues its images. Three threads work on them: one
//! encodes prompts, for models that take them; one owns the transformer and advances all admitted
//! images by one code a step; one owns the tokenizer and makes pictures of finished codes. No step
//! waits for a picture.

mod accept;
mod api;
mod engine;
mod error;
mod finish;
mod job;
mod memory;
mod prompts;
mod shared;
mod submission;
#[cfg(test)]
mod tests;
mod turns;
mod worker;

pub use api::{EngineConfig, Event, ImageRequest, ModelInfo, Refused, Request, Status, Subject, Timing};
pub use engine::Engine;
pub use error::{EngineError, Result};
pub use submission::Submission;
