//! Requests and what comes of them.

use std::path::PathBuf;
use std::time::Duration;

use base::Precision;
use generate::{ModelId, ModelsConfig, Picture, Provenance};
use settings::SamplingSettings;

use crate::error::EngineError;

/// Models of an engine, and the number of images that it holds.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The models, where they compute, and in which dtypes. `text` is not used: prompts come with
    /// requests.
    pub models: ModelsConfig,
    /// Folder of the text encoder of a model of prompts; `None`: the model's own.
    pub encoder: Option<PathBuf>,
    /// Images that share a step; `None`: as many as half of the free memory holds, at most 64 on the
    /// CPU and 256 on a GPU.
    pub slots: Option<usize>,
    /// Images that may wait.
    pub queue: usize,
}

/// The loaded model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// As it was named, or the name of the bundled model.
    pub id: String,
    /// Side of its images in pixels.
    pub side: i64,
    /// Codes of an image.
    pub num_tokens: i64,
    /// Number of different codes.
    pub codebook_size: i64,
    /// Its classes; `None`: it takes prompts.
    pub classes: Option<data::ClassTable>,
    /// Sampling settings of images that say nothing else, complete.
    pub defaults: SamplingSettings,
    /// Images that share a step, at the start.
    pub slots: usize,
    /// The transformer.
    pub transformer: ModelId,
    /// The tokenizer.
    pub tokenizer: ModelId,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Dtype of the transformer's weights.
    pub precision: Precision,
}

/// Subject of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Index of a class.
    Class(i64),
    /// Text of a prompt.
    Prompt(String),
}

/// An image to make.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRequest {
    /// Its class or prompt.
    pub subject: Subject,
    /// Content to steer away from, of a model of prompts.
    pub negative_prompt: Option<String>,
    /// Its own sampling settings; the rest are the model's.
    pub sampling: SamplingSettings,
    /// Seed.
    pub seed: u64,
    /// Number of the image within its seed, as of an image of `gen sample --seed`.
    pub index: u64,
    /// Side in pixels, 1 to 8192; `None`: the tokenizer's.
    pub size: Option<i64>,
}

/// Images that are accepted or refused together.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// One or more images.
    pub images: Vec<ImageRequest>,
    /// Previews of each image on its way, at most 3.
    pub partial_images: u32,
    /// Whether [`Event::Step`] is sent.
    pub steps: bool,
}

/// News of a request. Images are numbered in the request's order, from 0.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // the largest is the one that carries the image
pub enum Event {
    /// The first event, sent when the request is accepted.
    Queued {
        /// Images that wait in front of this request's first.
        ahead: usize,
    },
    /// An image has a slot. Its first code is drawn.
    Started {
        /// Number of the image.
        image: usize,
    },
    /// A code was drawn. After a lack of memory an image may begin again from the first code.
    Step {
        /// Number of the image.
        image: usize,
        /// Codes drawn so far.
        step: i64,
        /// Codes of an image.
        of: i64,
    },
    /// A preview: the codes drawn so far, and a guess of the rest by the same model.
    Partial {
        /// Number of the image.
        image: usize,
        /// Number of the preview, from 0.
        number: u32,
        /// The preview.
        picture: Picture,
    },
    /// An image is done.
    Done {
        /// Number of the image.
        image: usize,
        /// The image.
        picture: Picture,
        /// All it takes to make it again, as `gen sample` writes it into its PNG.
        provenance: Provenance,
        /// Its codes.
        codes: Vec<i64>,
        /// Tokens of the prompt that were used; 0 for a class.
        text_tokens: u64,
        /// Durations.
        timing: Timing,
    },
    /// An image was not made.
    Failed {
        /// Number of the image.
        image: usize,
        /// Reason.
        error: EngineError,
    },
}

/// Durations of an image's phases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// From the request to a slot.
    pub queued: Duration,
    /// In the slot.
    pub sampling: Duration,
    /// From the last code to the picture.
    pub decoding: Duration,
}

/// Reason why a request was not accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The queue has no room for all its images.
    #[error("{queued} images wait already, of at most {limit}")]
    Full {
        /// Images that wait.
        queued: usize,
        /// Images that may wait.
        limit: usize,
        /// Estimate of the time until the queue is empty.
        retry_after: Duration,
    },
    /// The engine takes no more requests.
    #[error("the engine is shutting down")]
    Draining,
    /// A value that the model does not take.
    #[error("{param}: {message}")]
    Invalid {
        /// Name of the parameter.
        param: &'static str,
        /// Value found, and values expected.
        message: String,
    },
    /// More images than the queue ever has room for.
    #[error("{images} images are more than the queue holds, {limit}")]
    TooMany {
        /// Images of the request.
        images: usize,
        /// Images that may wait.
        limit: usize,
    },
}

/// Figures of an engine. Counts are since the start; the warm-up is not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Status {
    /// Images that wait.
    pub queued: usize,
    /// Images in slots.
    pub active: usize,
    /// Slots.
    pub slots: usize,
    /// Steps.
    pub steps: u64,
    /// Images done.
    pub images: u64,
    /// Images that failed.
    pub failed: u64,
    /// Images whose [`crate::Submission`] was dropped before they were done.
    pub cancelled: u64,
    /// Requests refused.
    pub refused: u64,
    /// Moving average of a step's duration in seconds.
    pub step_seconds: f64,
    /// Rows of the transformer's batch, over all steps: one for each image, two under guidance.
    pub rows_stepped: u64,
}
