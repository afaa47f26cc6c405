use serde::{Deserialize, Serialize};

use crate::optim::LarsConfig;
use crate::schedule::EpochSchedule;
use crate::{Error, Result};

/// Settings of a head's training. The default is GigaTok's protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeConfig {
    /// The optimizer, with momentum 0.9 and no weight decay.
    pub optimizer: ProbeOptimizer,
    /// Batch norm (no affine map, eps 1e-6, momentum 0.1) in front of the linear layer.
    pub batch_norm: bool,
    /// Learning rate for 256 images a step.
    pub base_lr: f64,
    /// Passes over the training images.
    pub epochs: u64,
    /// Epochs of linear warm-up from 0.
    pub warmup_epochs: u64,
    /// Images of a batch; batch norm takes its statistics from them.
    pub batch_size: usize,
    /// Batches of one step; their gradients are averaged. Upstream: processes.
    pub accumulate: usize,
    /// Seed of initial weights, order, crops and dropout.
    pub seed: u64,
}

/// The optimizer of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOptimizer {
    /// Layer-wise scaled, trust coefficient 0.001.
    Lars,
    /// Plain gradient descent with momentum.
    Sgd,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        ProbeConfig {
            optimizer: ProbeOptimizer::Lars,
            batch_norm: true,
            base_lr: 0.1,
            epochs: 90,
            warmup_epochs: 10,
            batch_size: 128,
            accumulate: 64,
            seed: 0,
        }
    }
}

impl ProbeConfig {
    /// Images of one step.
    pub fn images_per_step(&self) -> usize {
        self.batch_size * self.accumulate
    }

    /// Warm-up to `base_lr · images per step / 256`, then half a cosine.
    pub fn schedule(&self) -> EpochSchedule {
        EpochSchedule {
            lr: self.base_lr * self.images_per_step() as f64 / 256.0,
            warmup: self.warmup_epochs as f64,
            epochs: self.epochs as f64,
        }
    }

    pub(crate) fn optimizer(&self) -> LarsConfig {
        match self.optimizer {
            ProbeOptimizer::Lars => LarsConfig::PROBE,
            ProbeOptimizer::Sgd => LarsConfig { trust_coefficient: None, ..LarsConfig::PROBE },
        }
    }

    /// Refuses settings that contradict each other or the number of images.
    pub(crate) fn check(&self, images: usize) -> Result<()> {
        let fail = |message: String| Err(Error::Recipe(message));
        if self.epochs == 0 || self.batch_size == 0 || self.accumulate == 0 {
            return fail("`--epochs`, `--batch-size` and `--accumulate` must be at least 1".into());
        }
        if self.warmup_epochs >= self.epochs {
            let (w, e) = (self.warmup_epochs, self.epochs);
            return fail(format!("{w} epochs of warm-up leave nothing of {e} epochs"));
        }
        if !(self.base_lr.is_finite() && self.base_lr > 0.0) {
            return fail(format!("`--base-lr` must be positive, found {}", self.base_lr));
        }
        if self.batch_norm && self.batch_size < 2 {
            return fail("batch norm needs a batch of at least 2 images, or `--head-bn off`".into());
        }
        if images < self.images_per_step() {
            let (b, a) = (self.batch_size, self.accumulate);
            return fail(format!(
                "{images} training images do not fill one step of {a} batches of {b}; lower `--accumulate`, and \
                 `--batch-size` if need be"
            ));
        }
        Ok(())
    }
}
