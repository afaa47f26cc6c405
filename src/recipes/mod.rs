//! Published figures as recipes: what to run, with which files, and what should come out.

pub mod climb;
pub mod pieces;
pub mod run;
pub mod steps;
pub mod verdict;

use std::path::{Path, PathBuf};

use base::Precision;
use base::config::ConfigError;
use base::hint::nearest;
use sampler::GuidanceSchedule;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// One published figure, as a file in `configs/benchmarks/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
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
    /// Images of random classes are made and compared with the training set's statistics.
    Generation(Generation),
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

/// Images of random classes are made and compared with the training set's statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// The tokenizer.
    pub tokenizer: Checkpoint,
    /// The transformer.
    pub transformer: Checkpoint,
    /// How many are made, of classes drawn uniformly at random.
    pub images: u64,
    /// Their side in pixels; the tokenizer's images are resized to it.
    pub side: i64,
    /// How codes are drawn.
    pub sampling: Sampling,
    /// How the scale is found where it was not published.
    #[serde(default)]
    pub search: Option<Search>,
    /// Seed of classes and codes.
    pub seed: u64,
    /// Images that are made together.
    pub batch_size: i64,
    /// Kind of number of weights and activations.
    pub precision: Precision,
    /// What they are compared with.
    pub reference: Reference,
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
    pub figures: std::collections::BTreeMap<Metric, f64>,
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

/// What a reference stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceKind {
    /// The cropped validation images.
    Rfid,
    /// Statistics of the whole training set.
    Gfid,
}

/// How codes are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Guidance scale; null where it was not published.
    pub cfg: Option<f64>,
    /// Its schedule.
    pub cfg_schedule: String,
    /// Where the schedule's window starts.
    #[serde(default)]
    pub cfg_start: Option<f64>,
    /// Softmax temperature.
    pub temperature: f64,
    /// Only so many of the best codes; 0 is all.
    pub top_k: i64,
    /// Only the best codes that together exceed it; 1 is all.
    pub top_p: f64,
}

/// The published hill climbing over guidance scales.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Its schedule.
    pub schedule: String,
    /// The first scale tried.
    pub start: f64,
}

/// A published value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// What was measured.
    pub metric: Metric,
    /// What was published.
    pub value: f64,
    /// How far off a measurement may be; null where the two are not the same quantity.
    pub tolerance: Option<f64>,
    /// Where the tolerance comes from.
    pub because: String,
}

/// Names of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// FID of reconstructions.
    Rfid,
    /// FID of generated images.
    Gfid,
    /// FID on spatial features.
    Sfid,
    /// Inception Score.
    Is,
    /// Improved precision.
    Precision,
    /// Improved recall.
    Recall,
    /// Peak signal-to-noise ratio, dB.
    Psnr,
    /// Structural similarity.
    Ssim,
    /// Structural similarity with the data range 2 of the official scripts.
    SsimDr2,
    /// LPIPS with VGG16.
    Lpips,
    /// Share of the codebook in use.
    CodebookUsage,
    /// Accuracy of a linear probe, percent.
    Top1,
}

impl Metric {
    /// As people write it.
    pub fn shown(self) -> &'static str {
        match self {
            Metric::Rfid => "rFID",
            Metric::Gfid => "gFID",
            Metric::Sfid => "sFID",
            Metric::Is => "IS",
            Metric::Precision => "precision",
            Metric::Recall => "recall",
            Metric::Psnr => "PSNR",
            Metric::Ssim => "SSIM",
            Metric::SsimDr2 => "SSIM (range 2)",
            Metric::Lpips => "LPIPS",
            Metric::CodebookUsage => "codebook usage",
            Metric::Top1 => "probe top-1 %",
        }
    }
}

impl Recipe {
    /// The recipe of that name, or in that file.
    pub fn find(given: &str) -> anyhow::Result<Recipe> {
        let path = Path::new(given);
        if path.is_file() {
            return Ok(Recipe::read(path)?);
        }
        let file = format!("{given}.yaml");
        match search_path().into_iter().map(|dir| dir.join(&file)).find(|f| f.is_file()) {
            Some(found) => Ok(Recipe::read(&found)?),
            None => Err(unknown(given).into()),
        }
    }

    /// Reads a file and checks what its type does not tell.
    pub fn read(path: &Path) -> Result<Recipe, ConfigError> {
        let recipe: Recipe = base::config::read(path)?;
        let invalid = |message: String| ConfigError::Invalid { origin: path.display().to_string(), message };
        recipe.check().map_err(invalid)?;
        Ok(recipe)
    }

    fn check(&self) -> Result<(), String> {
        if let Task::Generation(task) = &self.task {
            let Sampling { cfg, cfg_schedule, cfg_start, .. } = &task.sampling;
            GuidanceSchedule::named(cfg_schedule, *cfg_start, None).map_err(|e| e.to_string())?;
            if cfg.is_none() && task.search.is_none() {
                return Err(
                    "task: neither `sampling.cfg` nor `search` says which guidance scale to take".into()
                );
            }
        }
        if self.expected.iter().any(|e| e.tolerance.is_some_and(|t| t.is_nan() || t <= 0.0)) {
            return Err("expected: a tolerance must be positive, or null".into());
        }
        Ok(())
    }
}

/// The text of a configuration in `configs/`, as built into the program.
pub fn config_text(tokenizer: bool, name: &str) -> Option<&'static str> {
    let all = if tokenizer { tokenizer::released::RELEASED } else { ar_model::released::RELEASED };
    all.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

/// The places that recipes are looked for.
fn search_path() -> Vec<PathBuf> {
    let exe = std::env::current_exe().ok().and_then(|e| e.canonicalize().ok());
    let installed = exe.as_deref().and_then(Path::parent).map(|bin| bin.join("../share/gen/benchmarks"));
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/benchmarks");
    [installed, Some(checkout)].into_iter().flatten().collect()
}

/// Names of all recipes that are there.
pub fn names() -> Vec<String> {
    let entries = search_path().into_iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let stem = |path: PathBuf| Some(path.file_name()?.to_str()?.strip_suffix(".yaml")?.to_owned());
    let mut names: Vec<String> = entries.filter_map(|e| stem(e.path())).collect();
    names.sort();
    names.dedup();
    names
}

fn unknown(given: &str) -> Failure {
    let names = names();
    let failure = Failure::new(format!("`--recipe {given}` is neither a file nor a known recipe"));
    let near = nearest(given, names.iter().map(String::as_str), 3);
    match near.is_empty() {
        false => failure.hint(format!("did you mean `{}`?", near.join("` or `"))),
        true => failure.hint(format!("known are: {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a tokenizer's, and the name.
    fn configs(recipe: &Recipe) -> Vec<(bool, &str)> {
        match &recipe.task {
            Task::Reconstruction(t) => vec![(true, &t.tokenizer.config)],
            Task::Generation(t) => vec![(true, &t.tokenizer.config), (false, &t.transformer.config)],
            Task::Probe(t) => vec![(true, &t.tokenizer.config), (false, &t.transformer.config)],
            Task::NotRunnable(_) => vec![],
        }
    }

    #[test]
    fn every_recipe_is_understood_and_names_configurations_that_exist() {
        let names = names();
        assert!(names.len() > 50, "{}", names.len());
        for name in names {
            let recipe = Recipe::find(&name).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            for (tokenizer, config) in configs(&recipe) {
                assert!(config_text(tokenizer, config).is_some(), "{name}: no config `{config}`");
            }
            let runnable = !matches!(recipe.task, Task::NotRunnable(_));
            assert_eq!(runnable, !recipe.expected.is_empty(), "{name}");
            let kind = match &recipe.task {
                Task::Reconstruction(t) => Some((t.reference.kind, ReferenceKind::Rfid)),
                Task::Generation(t) => Some((t.reference.kind, ReferenceKind::Gfid)),
                _ => None,
            };
            assert!(kind.is_none_or(|(is, should)| is == should), "{name}: the wrong kind of reference");
        }
    }

    #[test]
    fn a_misspelled_recipe_gets_a_suggestion() {
        let text = crate::failure::render(&Recipe::find("gigatok-bl+gpt-bb").unwrap_err());
        assert!(text.contains("did you mean `gigatok-bl+gpt-b`"), "{text}");
    }
}
