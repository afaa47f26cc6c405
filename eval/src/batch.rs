//! One batch on its way into the metrics.

use std::collections::BTreeMap;

use backbones::Features;
use base::{Codes, Images, ImagesU8};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::math::pixels::PixelPair;
use crate::networks::Role;

/// Images of a batch and what was made of them, B of each.
#[derive(Debug, Default)]
pub struct EvalBatch {
    /// The images in order.
    pub items: Vec<Item>,
    /// Images judged.
    pub samples: Option<ImagesU8>,
    /// Images compared with as a set.
    pub reference: Option<ImagesU8>,
    /// Images judged beside their originals.
    pub pair: Option<ImagePair>,
    /// Codes of the images.
    pub codes: Option<Codes>,
    /// A transformer's prediction of their codes.
    pub likelihood: Option<CodeLikelihoods>,
}

/// An image of a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Item {
    /// Number in its set.
    pub index: u64,
    /// Name in its set.
    pub name: String,
    /// Its class, if it has one.
    pub class: Option<i64>,
    /// Its prompt, if prompts are attached.
    pub prompt: Option<String>,
}

/// Images judged and their originals, for pixel metrics and for networks.
#[derive(Debug)]
pub struct ImagePair {
    /// For pixel metrics.
    pub pixels: PixelPair,
    /// Images judged, as networks see them.
    pub judged: Images,
    /// Originals, as networks see them.
    pub originals: Images,
}

/// Likelihoods of the codes of images by a transformer.
#[derive(Debug)]
pub struct CodeLikelihoods {
    /// Nats of each image's codes, (B).
    pub nats: Tensor,
    /// Codes of an image.
    pub num_tokens: u64,
}

/// Features of a batch by network, of both sides.
#[derive(Debug, Default)]
pub struct BatchFeatures {
    /// Features of the images judged.
    pub samples: BTreeMap<Role, Features>,
    /// Features of the images compared with.
    pub reference: BTreeMap<Role, Features>,
}

/// Values that a metric takes from the images of a batch, by name, on the CPU.
pub type MetricValues = BTreeMap<String, Tensor>;

impl EvalBatch {
    /// A batch of sets.
    pub fn of_sets(items: Vec<Item>, samples: Option<ImagesU8>, reference: Option<ImagesU8>) -> Self {
        EvalBatch { items, samples, reference, ..EvalBatch::default() }
    }

    /// The images' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(|item| item.name.as_str())
    }

    /// Whether it holds something that is judged, rather than only compared with.
    pub fn is_judged(&self) -> bool {
        self.samples.is_some() || self.likelihood.is_some()
    }
}
