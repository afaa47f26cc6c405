//! What a file in `configs/benchmarks/` holds.

use base::Precision;
use serde::{Deserialize, Serialize};
use settings::{ReferenceKind, SamplingSettings};

use crate::quantity::Quantity;

/// One published figure, as a file in `configs/benchmarks/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// What is measured, for people.
    pub title: String,
    /// Where it was published.
    pub source: String,
    /// What is run.
    pub task: Task,
    /// What is random, and what decides it.
    pub seeds: String,
    /// What should come out.
    pub expected: Vec<Expected>,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Task {
    /// Held-out images are encoded, decoded and compared.
    Reconstruction(Reconstruction),
    /// Images of random classes are generated and compared with the training set's statistics.
    Generation(Generation),
    /// A set of prompts is drawn; the pictures are compared with their prompts, or with photographs of the same captions.
    TextToImage(TextToImage),
    /// A linear classifier on a transformer's features.
    Probe(Probe),
    /// Figures that nobody can measure again.
    NotRunnable(NotRunnable),
}

/// Held-out images are encoded, decoded and compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconstruction {
    /// The tokenizer.
    pub tokenizer: Checkpoint,
    /// Which images.
    pub images: ImageSet,
    /// Side to which originals and reconstructions are brought before they are compared.
    pub scored_side: i64,
    /// Images that go through the tokenizer together.
    pub batch_size: i64,
    /// Kind of number of weights and activations.
    pub precision: Precision,
    /// What the reconstructions are compared with.
    pub reference: Reference,
}

/// Images of random classes are generated and compared with the training set's statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// The tokenizer.
    pub tokenizer: Checkpoint,
    /// The transformer.
    pub transformer: Checkpoint,
    /// How many are generated, of classes drawn uniformly at random.
    pub images: u64,
    /// Their side in pixels; the tokenizer's images are resized to it.
    pub side: i64,
    /// How codes are drawn; the guidance scale is silent where it was not published.
    pub sampling: SamplingSettings,
    /// How the scale is found where it was not published.
    #[serde(default)]
    pub search: Option<Search>,
    /// Seed of classes and codes.
    pub seed: u64,
    /// Images that are generated together.
    pub batch_size: i64,
    /// Kind of number of weights and activations.
    pub precision: Precision,
    /// What they are compared with.
    pub reference: Reference,
}

/// A set of prompts is drawn; the pictures are compared with their prompts, or with photographs of the same captions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextToImage {
    /// The tokenizer.
    pub tokenizer: Checkpoint,
    /// The transformer.
    pub transformer: Checkpoint,
    /// The text encoder's folder, and where to get it.
    pub encoder: PublishedFile,
    /// The prompts.
    pub prompts: PublishedFile,
    /// Photographs whose FID to the pictures is taken; without them the CLIP score is.
    #[serde(default)]
    pub photographs: Option<DataSet>,
    /// Side of the pictures in pixels.
    pub side: i64,
    /// How codes are drawn; the guidance scale is silent where it was not published.
    pub sampling: SamplingSettings,
    /// Seed of the codes.
    pub seed: u64,
    /// Images that are generated together.
    pub batch_size: i64,
    /// Kind of number of weights and activations.
    pub precision: Precision,
}

/// A published file or folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedFile {
    /// Its name.
    pub file: String,
    /// Where to get it.
    pub from: String,
}

/// A linear classifier on a transformer's features, to GigaTok's protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The tokenizer.
    pub tokenizer: Checkpoint,
    /// The transformer.
    pub transformer: Checkpoint,
    /// Images of a batch.
    pub batch_size: i64,
    /// Batches of a step.
    pub accumulate: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Kind of number of weights and activations.
    pub precision: Precision,
}

/// Figures that nobody can measure again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotRunnable {
    /// Why not.
    pub why: String,
    /// The figures, for reference.
    pub figures: Vec<PublishedRow>,
}

/// A row of a published table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedRow {
    /// What was varied.
    pub setting: String,
    /// The figures by metric.
    #[serde(flatten)]
    pub figures: std::collections::BTreeMap<Quantity, f64>,
}

/// A published file and the configuration it goes with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Name of the configuration in `configs/tokenizer` or `configs/ar`.
    pub config: String,
    /// The file's name.
    pub file: String,
    /// Where to get it.
    pub from: String,
}

/// Held-out images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSet {
    /// The data set.
    pub set: DataSet,
    /// How many images it has.
    pub count: usize,
    /// Side of the centre crop that is encoded.
    pub side: i64,
}

/// Data sets of published figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataSet {
    /// ImageNet-1k, validation.
    Imagenet,
    /// COCO val2017.
    Coco,
}

/// What images are compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// What it stands for; the two must not be swapped.
    pub kind: ReferenceKind,
    /// A published file; without one, the originals themselves.
    pub file: Option<String>,
    /// Where to get it.
    #[serde(default)]
    pub from: Option<String>,
}

/// The published hill climbing over guidance scales.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// The first scale tried.
    pub start: f64,
}

/// A published value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// What was measured.
    pub metric: Quantity,
    /// What was published.
    pub value: f64,
    /// How far off a measurement may be; null where the two are not the same quantity.
    pub tolerance: Option<f64>,
    /// Origin of the tolerance.
    #[serde(alias = "because")] // older files
    pub reason: String,
}

impl DataSet {
    /// For people.
    pub fn shown(self) -> &'static str {
        match self {
            DataSet::Imagenet => "ImageNet-1k validation images",
            DataSet::Coco => "COCO val2017 images",
        }
    }
}
