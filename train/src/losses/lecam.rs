//! LeCam regularisation of the discriminator (Tseng et al., arXiv 2104.03310). Off in all released
//! configs.

use base::carried::{self, Change};
use base::{Init, Scope};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Settings of LeCam regularisation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeCamConfig {
    /// Weight of the penalty; 0.001 as published.
    pub weight: f64,
}

impl Default for LeCamConfig {
    fn default() -> Self {
        LeCamConfig { weight: 0.001 }
    }
}

/// Running means of the discriminator's outputs and the penalty on deviations from them. The means
/// are buffers, so that a resumed run continues with them.
#[derive(Debug)]
pub struct LeCam {
    /// Running mean of the logits of real images, fp64.
    pub real: Tensor,
    /// Running mean of the logits of reconstructions, fp64.
    pub fake: Tensor,
    start: u64,
}

impl LeCam {
    const DECAY: f64 = 0.99;
    const INITIAL: f64 = 1000.0;

    /// Averages with decay 0.99 from step `start` on; before, they equal the last value. Buffers
    /// `real` and `fake`.
    pub fn new(p: &Scope, start: u64) -> Self {
        let mean = |name| p.buffer(name, &[], Kind::Double, Init::Const(Self::INITIAL));
        LeCam { real: mean("real"), fake: mean("fake"), start }
    }

    /// Updates the averages with the mean logits of one discriminator step.
    pub fn update(&self, real: &Tensor, fake: &Tensor, step: u64) {
        let _guard = tch::no_grad_guard();
        let decay = if step < self.start { 0.0 } else { Self::DECAY };
        for (average, logits) in [(&self.real, real), (&self.fake, fake)] {
            let mean = logits.to_kind(Kind::Float).mean(Kind::Float).to_kind(Kind::Double);
            carried::change(average, Change::Blend(mean, 1.0 - decay));
        }
    }

    /// `mean relu(real - ema_fake)² + mean relu(ema_real - fake)²`, with the averages as they are
    /// now.
    pub fn penalty(&self, real: &Tensor, fake: &Tensor) -> Tensor {
        let now = |average: &Tensor| carried::value(average).to_kind(Kind::Float);
        let above = (real.to_kind(Kind::Float) - now(&self.fake)).relu().square().mean(Kind::Float);
        above + (now(&self.real) - fake.to_kind(Kind::Float)).relu().square().mean(Kind::Float)
    }
}
