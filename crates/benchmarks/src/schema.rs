//! Schema of the files in `configs/benchmarks/`.

use base::Precision;
use serde::{Deserialize, Serialize};
use settings::{ReferenceKind, SamplingSettings};

use crate::quantity::Quantity;

/// One published figure, as a file in `configs/benchmarks/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// Title, for display.
    pub title: String,
    /// Publication.
    pub source: String,
    /// The task to run.
    pub task: Task,
    /// Random inputs and the seeds that determine them.
    pub seeds: String,
    /// Published values.
    pub expected: Vec<Expected>,
}

/// The task of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Task {
    /// Held-out images are encoded, decoded and compared.
    Reconstruction(Reconstruction),
    /// Images of random classes are generated and compared with the training set's statistics.
    Generation(Generation),
    /// Images are generated from a set of prompts and compared with the prompts, or with
    /// photographs of the same captions.
    TextToImage(TextToImage),
    /// A linear classifier on a transformer's features.
    Probe(Probe),
    /// Figures that cannot be reproduced.
    NotRunnable(NotRunnable),
}

/// Held-out images are encoded, decoded and compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconstruction {
    /// The tokenizer.
    pub tokenizer: Checkpoint,
    /// The images.
    pub images: ImageSet,
    /// Side to which originals and reconstructions are brought before they are compared.
    pub scored_side: i64,
    /// Images that go through the tokenizer together.
    pub batch_size: i64,
    /// Dtype of weights and activations.
    pub precision: Precision,
    /// Reference for the reconstructions.
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
    /// Number of images to generate, of classes drawn uniformly at random.
    pub images: u64,
    /// Their side in pixels; the tokenizer's images are resized to it.
    pub side: i64,
    /// Sampling settings; the guidance scale is absent if it was not published.
    pub sampling: SamplingSettings,
    /// Search for the scale if it was not published.
    #[serde(default)]
    pub search: Option<Search>,
    /// Seed of classes and codes.
    pub seed: u64,
    /// Images that are generated together.
    pub batch_size: i64,
    /// Dtype of weights and activations.
    pub precision: Precision,
    /// Reference for the generated images.
    pub reference: Reference,
}

/// Images are generated from a set of prompts and compared with the prompts, or with photographs of
/// the same captions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextToImage {
    /// The tokenizer.
    pub tokenizer: Checkpoint,
    /// The transformer.
    pub transformer: Checkpoint,
    /// The text encoder's folder and its source.
    pub encoder: PublishedFile,
    /// The prompts.
    pub prompts: PublishedFile,
    /// Photographs for the FID of the generated images; without them the CLIP score is measured.
    #[serde(default)]
    pub photographs: Option<DataSet>,
    /// Side of the images in pixels.
    pub side: i64,
    /// Sampling settings; the guidance scale is absent if it was not published.
    pub sampling: SamplingSettings,
    /// Seed of the codes.
    pub seed: u64,
    /// Images that are generated together.
    pub batch_size: i64,
    /// Dtype of weights and activations.
    pub precision: Precision,
}

/// A published file or folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedFile {
    /// Its name.
    pub file: String,
    /// Source.
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
    /// Number of images in a batch.
    pub batch_size: i64,
    /// Number of batches in a step.
    pub accumulate: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Dtype of weights and activations.
    pub precision: Precision,
}

/// Figures that cannot be reproduced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotRunnable {
    /// The reason.
    pub why: String,
    /// The figures, for reference.
    pub figures: Vec<PublishedRow>,
}

/// A row of a published table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedRow {
    /// The varied setting.
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
    /// Source.
    pub from: String,
}

/// Held-out images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSet {
    /// The data set.
    pub set: DataSet,
    /// Number of images.
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

/// Reference for the evaluated images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Use of the reference; the two must not be swapped.
    pub kind: ReferenceKind,
    /// A published file; without one, the originals themselves.
    pub file: Option<String>,
    /// Source.
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
    /// The measured quantity.
    pub metric: Quantity,
    /// The published value.
    pub value: f64,
    /// Largest allowed difference; null if the two are not the same quantity.
    pub tolerance: Option<f64>,
    /// Origin of the tolerance.
    #[serde(alias = "because")] // older files
    pub reason: String,
}

impl DataSet {
    /// Name for display.
    pub fn shown(self) -> &'static str {
        match self {
            DataSet::Imagenet => "ImageNet-1k validation images",
            DataSet::Coco => "COCO val2017 images",
        }
    }
}
