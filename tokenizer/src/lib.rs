//! Image tokenizers: images ⇄ discrete codes.
//!
//! Holds the models (GigaTok, LlamaGen's VQGAN), their quantizer and their configurations, and
//! loads their checkpoints. Losses that compare images, optimisation and data belong to other
//! crates.

mod any;
mod bottleneck;
mod cnn;
mod config;
mod cost;
mod error;
mod gigatok;
mod llamagen_vq;
mod official;
mod open;
mod quantizer;
mod read;
pub mod released;
mod sizes;
mod spec;

pub use any::Model;
pub use cnn::{CnnDecoder, CnnEncoder};
pub use config::{
    AlignedLayer, AlignedPart, Alignment, CnnConfig, GigaTokConfig, GridLayers, Latent, LlamaGenVqConfig,
    QueryInit, TokenizerConfig, Upsample, VisionConfig,
};
pub use cost::Cost;
pub use error::{Error, Result};
pub use gigatok::GigaTok;
pub use llamagen_vq::LlamaGenVq;
pub use open::{Loaded, open, open_dir};
pub use quantizer::{
    Fsq, FsqConfig, Gradient, Quantized, Quantizer, QuantizerConfig, QuantizerLosses, QuantizerSettings,
    VectorQuantizer, VectorQuantizerConfig, entropy_loss,
};
pub use sizes::{Size, TransformerSize};
pub use spec::{CodeLayout, Latents, Tokenizer, TokenizerSpec, TrainOutput};
