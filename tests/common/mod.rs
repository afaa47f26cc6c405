//! Shared parts of end-to-end tests: a folder to run in, and models small enough to be created
//! there, with random weights in the format of training.

mod models;
mod place;
mod training;

pub use models::{
    Tiny, write_model, write_text_encoder, write_text_model, write_text_model_without_encoder, write_vqgan,
};
pub use place::{Place, pixels, stderr};
pub use training::{TINY, TrainingPlace};
