//! The adversarial terms of the tokenizer's training (GigaTok `vq_loss.py`).

use tch::{Kind, Tensor};

/// `0.5 (mean relu(1 - real) + mean relu(1 + fake))`, on logits.
pub fn hinge_discriminator(real: &Tensor, fake: &Tensor) -> Tensor {
    let (real, fake) = (real.to_kind(Kind::Float), fake.to_kind(Kind::Float));
    ((real * -1.0 + 1.0).relu().mean(Kind::Float) + (fake + 1.0).relu().mean(Kind::Float)) * 0.5
}

/// `0.5 (mean softplus(-real) + mean softplus(fake))`, on logits.
pub fn vanilla_discriminator(real: &Tensor, fake: &Tensor) -> Tensor {
    let (real, fake) = (real.to_kind(Kind::Float), fake.to_kind(Kind::Float));
    ((-real).softplus().mean(Kind::Float) + fake.softplus().mean(Kind::Float)) * 0.5
}

/// The generator's hinge loss, `-mean(fake)`, on logits.
pub fn hinge_generator(fake: &Tensor) -> Tensor {
    -fake.to_kind(Kind::Float).mean(Kind::Float)
}

/// `‖∂nll/∂w‖ / (‖∂gen/∂w‖ + 1e-4)`, clamped to [0, 10⁴] and detached, where w is the decoder's last layer (VQGAN,
/// Esser et al., arXiv 2012.09841, eq. 7). No released model used it. Both losses keep their graphs.
pub fn adaptive_weight(nll: &Tensor, generator: &Tensor, last_layer: &Tensor) -> Tensor {
    let norm = |loss: &Tensor| Tensor::run_backward(&[loss], &[last_layer], true, false)[0].norm();
    (norm(nll) / (norm(generator) + 1e-4)).clamp(0.0, 1e4).detach()
}

/// A weight that is 0 before step `start` (`adopt_weight`).
pub fn adopt_weight(weight: f64, step: u64, start: u64) -> f64 {
    if step < start { 0.0 } else { weight }
}
