//! Steps, batches, optimizer and learning rate of a run.

use base::Precision;
use serde::{Deserialize, Serialize};

use super::range::at_least_zero;
use crate::optim::AdamWConfig;
use crate::schedule::{Schedule, Shape};
use crate::{Error, Result};

/// Steps, batches, optimizer, learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimization {
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Images in one step.
    pub batch_size: usize,
    /// Number of equal parts of a step's batch, to save memory; their gradients are averaged.
    #[serde(default = "one")]
    pub micro_batches: usize,
    /// Micro-batches computed side by side on the CPU, each on an equal share of the threads; at
    /// most one a thread.
    #[serde(default = "one")]
    pub workers: usize,
    /// Learning rate after warm-up.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Shape of the learning rate after warm-up.
    pub schedule: Shape,
    /// The optimizer.
    pub adamw: AdamWConfig,
    /// Largest global norm of the gradient; 0 switches clipping off.
    pub clip: f64,
    /// Decay of the moving average of the weights, which is what the model's directory gets. Null:
    /// no average, and the directory gets the last weights.
    pub ema: Option<f64>,
    /// Dtype of the activations; weights, optimizer and losses are fp32.
    pub precision: Precision,
    /// On a CUDA device: TF32 in fp32 products and convolutions, as in the official trainers.
    #[serde(default)]
    pub tf32: bool,
    /// Set the learning rate after each step as the official trainers do (their first step ignores
    /// warm-up).
    #[serde(default)]
    pub parity: bool,
    /// Reaction to a loss or gradient that is not finite.
    #[serde(default)]
    pub on_nonfinite: OnNonfinite,
}

fn one() -> usize {
    1
}

/// Reaction to a loss or gradient that is not finite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNonfinite {
    /// Stop before the update.
    #[default]
    Stop,
    /// Skip the step and count it. A hundred in a row stop the run.
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

    /// The same with another learning rate; the schedule's last rate changes in proportion.
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
    ///
    /// # Errors
    /// Returns an error that names the setting, the value found and the values allowed.
    pub fn check(&self) -> Result<()> {
        self.check_batches()?;
        self.check_precision()?;
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
        if let Some(decay) = self.ema.filter(|d| !(0.0..1.0).contains(d)) {
            return fail(format!("optimization.ema must be in [0, 1), found {decay}"));
        }
        self.check_schedule()
    }

    fn check_batches(&self) -> Result<()> {
        let Optimization { steps, batch_size: b, micro_batches: m, workers: w, .. } = *self;
        if steps == 0 || b == 0 || m == 0 {
            return fail("optimization: steps, batch_size and micro_batches must be at least 1".into());
        }
        if !b.is_multiple_of(m) {
            return fail(format!("optimization: batch_size {b} is not a multiple of micro_batches {m}"));
        }
        if w == 0 || w > m {
            return fail(format!(
                "optimization: workers are at least 1 and share the micro-batches of a step; found {w} for \
                 micro_batches {m}"
            ));
        }
        Ok(())
    }

    fn check_precision(&self) -> Result<()> {
        match self.precision {
            Precision::Int8 => {
                fail("optimization: precision int8 is for decoding; choose fp32, bf16 or fp16".into())
            }
            Precision::Fp16 => fail(
                "optimization: fp16 gradients underflow without a loss scaler, which this trainer does not \
                 have; choose precision bf16, which needs none, or fp32"
                    .into(),
            ),
            _ => Ok(()),
        }
    }

    fn check_schedule(&self) -> Result<()> {
        match self.schedule {
            Shape::Cosine { end_lr } => at_least_zero("optimization.schedule.end_lr", end_lr),
            Shape::Wsd { decay_fraction: f } if !(0.0..=1.0).contains(&f) => {
                fail(format!("optimization.schedule.decay_fraction must be in [0, 1], found {f}"))
            }
            _ => Ok(()),
        }
    }
}

fn fail(message: String) -> Result<()> {
    Err(Error::Recipe(message))
}

#[cfg(test)]
mod tests {
    use base::config::Document;

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
