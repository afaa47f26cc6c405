//! LeCam regularisation of the discriminator (Tseng et al., arXiv 2104.03310). Off in all released configs.

use tch::{Kind, Tensor};

/// Running means of the discriminator's outputs and the penalty on leaving them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeCam {
    /// Running mean of the logits of real images.
    pub real: f64,
    /// Running mean of the logits of reconstructions.
    pub fake: f64,
    start: u64,
}

impl LeCam {
    const DECAY: f64 = 0.99;
    const INITIAL: f64 = 1000.0;

    /// Averages with decay 0.99 from step `start` on; before it they equal the last value.
    pub fn new(start: u64) -> Self {
        LeCam { real: Self::INITIAL, fake: Self::INITIAL, start }
    }

    /// Takes in the mean logits of one discriminator step.
    pub fn update(&mut self, real: &Tensor, fake: &Tensor, step: u64) {
        let decay = if step < self.start { 0.0 } else { Self::DECAY };
        let mean = |t: &Tensor| t.detach().to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        self.real = self.real * decay + mean(real) * (1.0 - decay);
        self.fake = self.fake * decay + mean(fake) * (1.0 - decay);
    }

    /// `mean relu(real - ema_fake)² + mean relu(ema_real - fake)²`.
    pub fn penalty(&self, real: &Tensor, fake: &Tensor) -> Tensor {
        let above = (real.to_kind(Kind::Float) - self.fake).relu().square().mean(Kind::Float);
        above + (fake.to_kind(Kind::Float) * -1.0 + self.real).relu().square().mean(Kind::Float)
    }
}
