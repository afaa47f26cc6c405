//! The adversarial terms of the tokenizer's training (GigaTok `vq_loss.py`), on logits, in fp32.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Pair of losses that generator and discriminator minimise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdversarialLoss {
    /// Hinge (Lim and Ye, arXiv 1705.02894): all releases.
    #[default]
    Hinge,
    /// The original discriminator's, with the generator's `-mean(fake)`, as in VQGAN.
    Vanilla,
    /// The original non-saturating pair (Goodfellow et al., arXiv 1406.2661). Upstream swaps input
    /// and target of the cross-entropy, which is another loss; this one is correct.
    NonSaturating,
    /// R3GAN (Huang et al., arXiv 2501.05441): relativistic, with gradient penalties on both kinds
    /// of image.
    R3gan,
}

impl AdversarialLoss {
    /// Whether only differences between logits of real and generated images count.
    pub fn is_relative(self) -> bool {
        self == AdversarialLoss::R3gan
    }

    /// The discriminator's loss, without R3GAN's penalties ([`gradient_penalty`]).
    pub fn discriminator(self, real: &Tensor, fake: &Tensor) -> Tensor {
        match self {
            AdversarialLoss::Hinge => hinge_discriminator(real, fake),
            AdversarialLoss::Vanilla | AdversarialLoss::NonSaturating => vanilla_discriminator(real, fake),
            AdversarialLoss::R3gan => relativistic(real, fake),
        }
    }

    /// The generator's loss; `real` is used only by a relativistic loss.
    pub fn generator(self, real: Option<&Tensor>, fake: &Tensor) -> Tensor {
        match (self, real) {
            (AdversarialLoss::Hinge | AdversarialLoss::Vanilla, _) => hinge_generator(fake),
            (AdversarialLoss::NonSaturating, _) => non_saturating_generator(fake),
            (AdversarialLoss::R3gan, real) => {
                relativistic(fake, real.expect("a relativistic loss takes the logits of both"))
            }
        }
    }
}

fn fp32(logits: &Tensor) -> Tensor {
    logits.to_kind(Kind::Float)
}

/// `0.5 (mean relu(1 - real) + mean relu(1 + fake))`, on logits.
pub fn hinge_discriminator(real: &Tensor, fake: &Tensor) -> Tensor {
    ((fp32(real) * -1.0 + 1.0).relu().mean(Kind::Float) + (fp32(fake) + 1.0).relu().mean(Kind::Float)) * 0.5
}

/// `0.5 (mean softplus(-real) + mean softplus(fake))`, on logits.
pub fn vanilla_discriminator(real: &Tensor, fake: &Tensor) -> Tensor {
    ((-fp32(real)).softplus().mean(Kind::Float) + fp32(fake).softplus().mean(Kind::Float)) * 0.5
}

/// The generator's hinge loss, `-mean(fake)`, on logits.
pub fn hinge_generator(fake: &Tensor) -> Tensor {
    -fp32(fake).mean(Kind::Float)
}

/// `mean softplus(-fake)`, on logits: minus the log-probability that reconstructions are real.
pub fn non_saturating_generator(fake: &Tensor) -> Tensor {
    (-fp32(fake)).softplus().mean(Kind::Float)
}

/// `mean softplus(-(better - worse))`, on logits.
pub fn relativistic(better: &Tensor, worse: &Tensor) -> Tensor {
    (fp32(worse) - fp32(better)).softplus().mean(Kind::Float)
}

/// `γ/2 · mean ‖∂ Σ logits/∂ image‖²` (R1 on real images, R2 on reconstructions; Roth
/// et al., arXiv 1705.09367, Mescheder et al., arXiv 1801.04406). The images require a gradient;
/// the result has one.
pub fn gradient_penalty(logits: &Tensor, images: &Tensor, gamma: f64) -> Tensor {
    let sum = fp32(logits).sum(Kind::Float);
    assert!(sum.requires_grad(), "the penalty needs logits that depend on the images");
    let gradient = Tensor::run_backward(&[sum], &[images], true, true).remove(0);
    let squares = gradient.square().sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float);
    squares.mean(Kind::Float) * (gamma / 2.0)
}

/// `‖∂nll/∂w‖ / (‖∂gen/∂w‖ + 1e-4)`, clamped to [0, 10⁴] and detached, where w is
/// the decoder's last layer (VQGAN, Esser et al., arXiv 2012.09841, eq. 7). No released model used
/// it. Both losses keep their graphs.
pub fn adaptive_weight(nll: &Tensor, generator: &Tensor, last_layer: &Tensor) -> Tensor {
    let norm = |loss: &Tensor| {
        assert!(
            loss.requires_grad(),
            "the adaptive weight needs losses that depend on the decoder's last layer"
        );
        Tensor::run_backward(&[loss], &[last_layer], true, false)[0].norm()
    };
    (norm(nll) / (norm(generator) + 1e-4)).clamp(0.0, 1e4).detach()
}

/// A weight that is 0 before step `start` (`adopt_weight`).
pub fn adopt_weight(weight: f64, step: u64, start: u64) -> f64 {
    if step < start { 0.0 } else { weight }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: &Tensor, b: f64) {
        let a = a.double_value(&[]);
        assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{a} and {b}");
    }

    #[test]
    fn every_loss_equals_its_formula() {
        let (real, fake) = ([0.3f64, -1.5, 2.0], [0.7f64, -0.2, 1.4]);
        let (r, f) =
            (Tensor::from_slice(&real.map(|v| v as f32)), Tensor::from_slice(&fake.map(|v| v as f32)));
        let mean = |g: &dyn Fn(usize) -> f64| (0..3).map(g).sum::<f64>() / 3.0;
        // -log σ(x) of real images and -log (1 - σ(x)) of reconstructions, by their definition.
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        let bce = 0.5 * (mean(&|i| -sigma(real[i]).ln()) + mean(&|i| -(1.0 - sigma(fake[i])).ln()));
        use AdversarialLoss::{NonSaturating, R3gan, Vanilla};
        near(&NonSaturating.discriminator(&r, &f), bce);
        near(&Vanilla.discriminator(&r, &f), bce);
        near(&NonSaturating.generator(None, &f), mean(&|i| -sigma(fake[i]).ln()));
        near(&Vanilla.generator(None, &f), -mean(&|i| fake[i]));
        near(&R3gan.discriminator(&r, &f), mean(&|i| -sigma(real[i] - fake[i]).ln()));
        near(&R3gan.generator(Some(&r), &f), mean(&|i| -sigma(fake[i] - real[i]).ln()));
    }

    /// D(x) = Σ w x²/2 has the gradient w x, so the penalty is γ/2 mean ‖w x‖², whose
    /// derivative by w is γ mean Σ w x².
    #[test]
    fn penalties_and_their_gradients_equal_the_closed_form() {
        let options = (Kind::Float, tch::Device::Cpu);
        let x = Tensor::randn([4, 3, 2, 2], options).set_requires_grad(true);
        let w = Tensor::from(0.6f32).set_requires_grad(true);
        let logits = (x.square() * &w / 2.0).sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float);
        let penalty = gradient_penalty(&logits, &x, 15.0);
        let squares = x.square().sum(Kind::Float).double_value(&[]) / 4.0;
        near(&penalty, 7.5 * 0.36 * squares);
        near(&Tensor::run_backward(&[penalty], &[&w], false, false).remove(0), 15.0 * 0.6 * squares);
    }
}
