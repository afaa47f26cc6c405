//! What decides a tokenizer's training.

use base::config::Document;
use serde::{Deserialize, Serialize};
use tokenizer::TokenizerConfig;

use crate::Result;
use crate::discriminator::PatchGanConfig;
use crate::recipe::{ImageData, Intervals, Optimization, with_overrides};

/// Everything that decides a tokenizer's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// Seed of the first weights, the order of the data, augmentation and all else that is random.
    pub seed: u64,
    /// The tokenizer.
    pub model: TokenizerConfig,
    /// Where the first weights are drawn from, if not as published.
    #[serde(default)]
    pub init: Initialization,
    /// The images.
    pub data: ImageData,
    /// What is minimised.
    pub losses: TokenizerLosses,
    /// How.
    pub optimization: Optimization,
    /// How often to log, validate and save, in steps.
    pub every: Intervals,
}

/// The first weights. The published standard deviations suit widths of 512 and more; in narrow models every layer
/// adds little at first, and a 1-D decoder, whose queries start out all the same, long paints the mean colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Initialization {
    /// Of linear and convolution weights; 0.02 as published.
    pub weight_std: Option<f64>,
    /// Of position tables; 1/√width as published.
    pub position_std: Option<f64>,
}

/// Loss weights. The quantizer's own (commitment, entropy) are in the model's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerLosses {
    /// Weight of the mean squared error.
    pub l2: f64,
    /// Weight of the mean absolute error.
    #[serde(default)]
    pub l1: f64,
    /// Help for the first part of training.
    pub auxiliary: Option<Auxiliary>,
    /// The PatchGAN.
    pub adversarial: Option<Adversarial>,
}

/// Terms that are on in the steps `1..end_step` only (official `aux_loss_end`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auxiliary {
    /// The first step without them.
    pub end_step: u64,
    /// Weight of the feature reconstruction: decoder features are drawn to the CNN encoder's.
    pub feature_weight: f64,
    /// How features are compared.
    pub feature_distance: FeatureDistance,
    /// Also reconstruct from the CNN features directly, past transformers and quantizer, with the same pixel losses.
    pub direct: bool,
}

/// How features are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureDistance {
    /// Mean squared error.
    Mse,
    /// One minus the cosine over channels.
    Cosine,
}

/// Adversarial training with hinge losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adversarial {
    /// Weight of the generator's and of the discriminator's loss (0.5 in all releases).
    pub weight: f64,
    /// The first step, from 1, of both.
    pub start_step: u64,
    /// The discriminator.
    pub discriminator: PatchGanConfig,
}

impl TokenizerRecipe {
    /// A recipe with `key=value` changes.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong kind.
    pub fn from_document(document: &Document, changes: &[String]) -> Result<Self> {
        with_overrides(document, changes)
    }
}
