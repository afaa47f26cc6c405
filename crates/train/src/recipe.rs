//! What a training run is made of besides the model: the shared parts of the recipes in `configs/train/`.

use std::path::{Path, PathBuf};

use base::Precision;
use base::config::Document;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::optim::AdamWConfig;
use crate::schedule::{Schedule, Shape};
use crate::task::Recipe;
use crate::{Error, Result};

/// A recipe with `key=value` changes, which may also name keys that the file leaves at their defaults. Relative paths in
/// the file start at its folder, those in changes at the working directory; the result holds absolute ones.
pub(crate) fn with_overrides<T: DeserializeOwned + Recipe>(
    document: &Document,
    changes: &[String],
) -> Result<T> {
    let mut complete: T = document.typed()?;
    let origin = Path::new(&document.origin);
    if let (true, Some(folder)) = (origin.is_file(), origin.parent()) {
        complete.paths().into_iter().for_each(|path| *path = folder.join(&*path));
    }
    let mut complete = Document::complete(&document.origin, &complete)?;
    complete.set(changes)?;
    let mut recipe: T = complete.typed()?;
    for path in recipe.paths() {
        *path = std::path::absolute(&*path).map_err(Error::file("find", path))?;
    }
    Ok(recipe)
}

/// Refuses a number below 0 or not finite, by its key.
pub(crate) fn at_least_zero(key: &str, value: f64) -> Result<()> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(Error::Recipe(format!("{key} must be 0 or more, found {value}"))),
    }
}

/// Images to train on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageData {
    /// Folder, tar shards or list of training images.
    pub train: Option<PathBuf>,
    /// The same, held out for validation; without it there is none.
    pub validation: Option<PathBuf>,
    /// How a square is cut from each training image.
    pub crop: Crop,
    /// Mirror training images with probability 1/2.
    pub flip: bool,
    /// Decoding threads; by default one a core.
    pub workers: Option<usize>,
    /// How many damaged images are bearable before the run stops.
    pub max_corrupt: usize,
}

impl ImageData {
    /// Refuses numbers out of their range; `key` is the recipe's key of these images.
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        match self.crop {
            Crop::Random { min_fraction: f } if !(f > 0.0 && f <= 1.0) => Err(Error::Recipe(format!(
                "{key}.crop.min_fraction must be above 0 and at most 1, found {f}"
            ))),
            _ => Ok(()),
        }
    }

    /// The files that are named.
    pub(crate) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.train.iter_mut().chain(self.validation.iter_mut())
    }
}

/// How a square is cut from a training image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Crop {
    /// The middle.
    Center,
    /// Anywhere, keeping at least this share of the short side (0.8 in GigaTok).
    Random {
        /// Smallest share kept.
        min_fraction: f64,
    },
}

/// Steps, batches, optimizer, learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimization {
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Images that make one step.
    pub batch_size: usize,
    /// Into how many parts a step's batch is cut to save memory; their gradients are averaged.
    #[serde(default = "one")]
    pub micro_batches: usize,
    /// How many micro-batches are worked on at a time, each on an equal share of the threads; no more than there are
    /// threads. On the CPU.
    #[serde(default = "one")]
    pub workers: usize,
    /// Learning rate after warm-up.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// The learning rate after warm-up.
    pub schedule: Shape,
    /// The optimizer.
    pub adamw: AdamWConfig,
    /// Largest global norm of the gradient; 0 switches clipping off.
    pub clip: f64,
    /// Decay of the moving average of the weights; without it there is none, and the last weights are kept.
    pub ema: Option<f64>,
    /// Kind of the activations; weights, optimizer and losses are fp32.
    pub precision: Precision,
    /// On a CUDA device: fp32 products and convolutions take TF32, as the official trainers let them.
    #[serde(default)]
    pub tf32: bool,
    /// Set the learning rate after each step as the official trainers do (their first step ignores warm-up).
    #[serde(default)]
    pub parity: bool,
    /// What to do when a loss or a gradient is not a finite number.
    #[serde(default)]
    pub on_nonfinite: OnNonfinite,
}

fn one() -> usize {
    1
}

/// How often things happen, in steps; 0 is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervals {
    /// A line in the log.
    pub log: u64,
    /// Validation.
    pub validate: u64,
    /// Pictures in `samples/`: a transformer's samples, a tokenizer's reconstructions.
    #[serde(default)]
    pub samples: u64,
    /// Saving the state and the weights; both are saved at the end in any case.
    pub save: u64,
    /// A saved state that is kept for ever.
    #[serde(default)]
    pub milestone: u64,
    /// Not an interval: how many of the newest states are kept beside the milestones, at least 1.
    #[serde(default = "two")]
    pub keep: usize,
}

fn two() -> usize {
    2
}

impl Intervals {
    /// Refuses to keep nothing.
    pub fn check(&self) -> Result<()> {
        match self.keep {
            0 => Err(Error::Recipe("every.keep: at least the newest state is kept; 1 is the least".into())),
            _ => Ok(()),
        }
    }
}

/// What to do when a loss or a gradient is not a finite number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNonfinite {
    /// Stop before the update.
    #[default]
    Stop,
    /// Leave the step out, and count it. A hundred in a row stop the run after all.
    Skip,
}

impl Optimization {
    /// The learning-rate schedule.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            lr: self.lr,
            warmup: self.warmup,
            total: self.steps,
            shape: self.schedule,
            parity: self.parity,
        }
    }

    /// The same with another learning rate, which goes over the run in proportion.
    pub(crate) fn with_lr(&self, lr: f64) -> Optimization {
        let schedule = match self.schedule {
            Shape::Cosine { end_lr } => Shape::Cosine { end_lr: end_lr * lr / self.lr },
            other => other,
        };
        Optimization { lr, schedule, ..self.clone() }
    }

    /// Images of one micro-batch.
    pub fn micro_batch_size(&self) -> usize {
        self.batch_size / self.micro_batches.max(1)
    }

    /// Refuses settings that contradict each other.
    pub fn check(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Recipe(message));
        if self.steps == 0 || self.batch_size == 0 || self.micro_batches == 0 {
            return fail("optimization: steps, batch_size and micro_batches must be at least 1".into());
        }
        if !self.batch_size.is_multiple_of(self.micro_batches) {
            let (b, m) = (self.batch_size, self.micro_batches);
            return fail(format!("optimization: batch_size {b} is not a multiple of micro_batches {m}"));
        }
        if self.workers == 0 || self.workers > self.micro_batches {
            let (w, m) = (self.workers, self.micro_batches);
            return fail(format!(
                "optimization: workers are at least 1 and share the micro-batches of a step; found {w} for \
                 micro_batches {m}"
            ));
        }
        if self.precision == Precision::Int8 {
            return fail("optimization: precision int8 is for decoding; choose fp32, bf16 or fp16".into());
        }
        self.adamw.check()?;
        at_least_zero("optimization.clip", self.clip)?;
        if !self.lr.is_finite() || self.lr <= 0.0 {
            return fail(format!("optimization.lr must be above 0, found {}", self.lr));
        }
        if self.warmup > self.steps {
            return fail(format!(
                "optimization.warmup {} is longer than the run, {} steps",
                self.warmup, self.steps
            ));
        }
        if self.precision == Precision::Fp16 {
            let message = "optimization: gradients would underflow in fp16 without a loss scaler, which is not here; take \
                           precision bf16, which needs none, or fp32";
            return fail(message.into());
        }
        if let Some(decay) = self.ema.filter(|d| !(0.0..1.0).contains(d)) {
            return fail(format!("optimization.ema must be in [0, 1), found {decay}"));
        }
        match self.schedule {
            Shape::Cosine { end_lr } => at_least_zero("optimization.schedule.end_lr", end_lr),
            Shape::Wsd { decay_fraction: f } if !(0.0..=1.0).contains(&f) => {
                fail(format!("optimization.schedule.decay_fraction must be in [0, 1], found {f}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `clip`, `lr` and the like; their keys are in the message.
    #[test]
    fn numbers_out_of_range_are_refused_by_their_key() {
        let good = "{steps: 100, batch_size: 4, lr: 1.0e-3, warmup: 10, schedule: {type: constant}, clip: 1.0, ema: 0.9,
            adamw: {betas: [0.9, 0.95], weight_decay: 0.1, decay: all}, precision: fp32}";
        let check = |change: &str| {
            let mut document = Document::parse("recipe", good).unwrap();
            document.set(&[change.to_owned()]).unwrap();
            document.typed::<Optimization>().unwrap().check()
        };
        for fine in ["clip=0.0", "ema=0.0", "warmup=100", "schedule={type: cosine, end_lr: 0.0}"] {
            check(fine).unwrap();
        }
        for (changes, key) in [
            (["clip=-1.0", "clip=.nan", "clip=.inf"], "optimization.clip must be"),
            (["lr=0.0", "lr=-1.0e-3", "lr=.nan"], "optimization.lr must be"),
            (["ema=1.0", "ema=-0.1", "ema=.nan"], "optimization.ema must be"),
            (
                ["adamw.betas=[1.0, 0.9]", "adamw.betas=[-0.1, 0.9]", "adamw.betas=[.nan, 0.9]"],
                "betas[0] must be",
            ),
            (
                ["adamw.weight_decay=-0.1", "adamw.weight_decay=.inf", "adamw.weight_decay=.nan"],
                "weight_decay must",
            ),
        ] {
            changes.iter().for_each(|change| refused(check(change), key));
        }
        let schedule = |shape: &str| check(&format!("schedule={shape}"));
        for bad in ["-1.0e-5", ".nan", ".inf"] {
            refused(
                schedule(&format!("{{type: cosine, end_lr: {bad}}}")),
                "optimization.schedule.end_lr must be",
            );
            let wsd = format!("{{type: wsd, decay_fraction: {bad}}}");
            refused(schedule(&wsd), "optimization.schedule.decay_fraction must be");
        }
        refused(check("warmup=101"), "optimization.warmup 101 is longer than the run");
    }

    fn refused(result: Result<()>, expected: &str) {
        let message = result.expect_err(expected).to_string();
        assert!(message.contains(expected), "{message}");
    }
}
