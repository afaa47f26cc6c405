//! Learning rates as pure functions of the step.

use serde::{Deserialize, Serialize};

/// Shape of the learning rate over a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// The base rate in all steps.
    Constant,
    /// Half a cosine from the base rate to `end_lr` (official names: `cosine_v2`; `cosine` is
    /// `end_lr` 0).
    Cosine {
        /// The last learning rate.
        end_lr: f64,
    },
    /// Warm-up, stable, decay: constant, then over the last `decay_fraction` of the run
    /// `lr (1 - sqrt(progress))` down to 0.
    Wsd {
        /// The decaying share of all steps.
        decay_fraction: f64,
    },
}

/// A learning-rate schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The rate after warm-up.
    pub lr: f64,
    /// Steps of linear warm-up from 1 % of the rate.
    pub warmup: u64,
    /// Steps of the whole run.
    pub total: u64,
    /// Shape after warm-up.
    pub shape: Shape,
    /// Reproduce the official trainers' timing, see [`Schedule::for_step`].
    pub parity: bool,
}

impl Schedule {
    /// First step of a rate that falls and depends on the number of steps; `None` for a constant
    /// rate.
    pub fn decay_start(&self) -> Option<u64> {
        match self.shape {
            Shape::Constant => None,
            Shape::Cosine { .. } => Some(self.warmup),
            Shape::Wsd { decay_fraction } => {
                Some(self.total - ((decay_fraction * self.total as f64) as u64).min(self.total))
            }
        }
    }

    /// The rate at `t`, counted from 0: warm-up factor `t/W + (1 - t/W)/100`, then the shape.
    pub fn at(&self, t: u64) -> f64 {
        if t < self.warmup {
            let f = t as f64 / self.warmup as f64;
            return self.lr * (f + (1.0 - f) / 100.0);
        }
        match self.shape {
            Shape::Constant => self.lr,
            Shape::Cosine { end_lr } if t >= self.total => end_lr,
            Shape::Cosine { end_lr } => {
                let p = (t - self.warmup) as f64 / (self.total - self.warmup) as f64;
                end_lr + 0.5 * (self.lr - end_lr) * (1.0 + (std::f64::consts::PI * p).cos())
            }
            Shape::Wsd { .. } => {
                let start = self.decay_start().unwrap_or(self.total);
                match t {
                    t if t < start => self.lr,
                    t if t >= self.total => 0.0,
                    t => self.lr * (1.0 - ((t - start) as f64 / (self.total - start) as f64).sqrt()),
                }
            }
        }
    }

    /// The rate of optimizer step `step` (1 is the first): the schedule at `step - 1`, so warm-up
    /// is warm from the first update.
    ///
    /// With `parity`, the rate of GigaTok's trainers (`vq_train.py`, `train_c2i.py`): they evaluate
    /// the schedule after the optimizer's step, so the first step (`first`) has the full rate
    /// despite warm-up, and each later one the value meant for the step before. An optimizer that
    /// starts late, like the discriminator's, has its own first step.
    pub fn for_step(&self, step: u64, first: bool) -> f64 {
        match (self.parity, first) {
            (false, _) => self.at(step.saturating_sub(1)),
            (true, true) => self.lr,
            (true, false) => self.at(step.saturating_sub(2)),
        }
    }
}

/// Linear warm-up from 0, then half a cosine down to 0, over fractional epochs (MAE's
/// `adjust_learning_rate`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochSchedule {
    /// The rate after warm-up.
    pub lr: f64,
    /// Epochs of warm-up.
    pub warmup: f64,
    /// Epochs of the whole run.
    pub epochs: f64,
}

impl EpochSchedule {
    /// The rate at `epoch`: finished steps / steps of an epoch.
    pub fn at(&self, epoch: f64) -> f64 {
        if epoch < self.warmup {
            return self.lr * epoch / self.warmup;
        }
        let p = (epoch - self.warmup) / (self.epochs - self.warmup);
        self.lr * 0.5 * (1.0 + (std::f64::consts::PI * p).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probes_rate_rises_and_falls_by_epochs() {
        let s = EpochSchedule { lr: 3.2, warmup: 10.0, epochs: 90.0 };
        for (epoch, lr) in [(0.0, 0.0), (5.0, 1.6), (10.0, 3.2), (50.0, 1.6), (90.0, 0.0)] {
            assert!((s.at(epoch) - lr).abs() < 1e-12, "epoch {epoch}: {}", s.at(epoch));
        }
    }

    fn schedule(shape: Shape) -> Schedule {
        Schedule { lr: 1e-4, warmup: 50, total: 1000, shape, parity: false }
    }

    #[test]
    fn ends_are_where_they_should_be() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} {b}");
        let c = schedule(Shape::Cosine { end_lr: 1e-5 });
        close(c.at(0), 1e-6);
        close(c.at(50), 1e-4);
        close(c.at(525), 5.5e-5);
        close(c.at(1000), 1e-5);
        let w = schedule(Shape::Wsd { decay_fraction: 0.2 });
        close(w.at(800), 1e-4);
        close(w.at(850), 5e-5);
        close(w.at(1000), 0.0);
    }

    #[test]
    fn official_timing_lags_by_one_and_starts_at_full_rate() {
        let sane = schedule(Shape::Constant);
        let parity = Schedule { parity: true, ..sane };
        assert!((sane.for_step(1, true) - 1e-6).abs() < 1e-18);
        assert_eq!(parity.for_step(1, true), 1e-4);
        assert_eq!(parity.for_step(2, false), sane.at(0));
        assert_eq!(parity.for_step(31, false), sane.for_step(30, false));
    }
}
