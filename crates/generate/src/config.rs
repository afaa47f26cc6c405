//! Everything that decides the images of a run.

use std::path::PathBuf;

use base::Precision;
use sampler::{DecodeMode, SamplingConfig};
use settings::{GpuOptions, Rng};
use tch::Device;

use crate::condition::Prompt;
use crate::pair::ModelPair;

/// Models to load, and a run of them.
#[derive(Debug, Clone)]
pub struct GenerateConfig {
    /// The models.
    pub models: ModelsConfig,
    /// The run.
    pub draw: DrawConfig,
}

/// Models, where they compute, and in which dtypes.
#[derive(Debug, Clone)]
pub struct ModelsConfig {
    /// The transformer and its tokenizer.
    pub pair: ModelPair,
    /// Prompts, of a model that takes them.
    pub text: Option<TextConfig>,
    /// Device of all networks.
    pub device: Device,
    /// Dtype of the transformer's weights.
    pub precision: Precision,
    /// Dtype of the tokenizer.
    pub tokenizer_precision: Precision,
    /// Options of decoding on a GPU.
    pub gpu: GpuOptions,
}

/// Prompts and the encoder of their features.
#[derive(Debug, Clone)]
pub struct TextConfig {
    /// All prompts, in order of their places.
    pub prompts: Vec<Prompt>,
    /// Negative prompt: content to steer away from, instead of the model's null condition.
    pub negative: Option<String>,
    /// Folder of the text encoder, where one is named.
    pub encoder: Option<PathBuf>,
}

/// The way in which codes are drawn and images made of them.
#[derive(Debug, Clone)]
pub struct DrawConfig {
    /// Guidance, temperature and filters.
    pub sampling: SamplingConfig,
    /// Source of random numbers.
    pub rng: Rng,
    /// Seed of the run.
    pub seed: u64,
    /// Order in which codes are computed.
    pub mode: DecodeMode,
    /// Side of the images in pixels; `None` for the tokenizer's.
    pub size: Option<i64>,
}
