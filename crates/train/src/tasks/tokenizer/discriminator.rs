//! The discriminator's phase.

use base::Mode;
use tch::Kind;

use super::{TokenizerBatch, TokenizerTask};
use crate::Losses;
use crate::losses::adversarial;

impl TokenizerTask {
    /// Losses of the discriminator, on what the generator's phase left in `batch`.
    pub(super) fn discriminator(&self, batch: &TokenizerBatch) -> Losses {
        let a = self.recipe.losses.adversarial.as_ref().expect("there is a second phase only with it");
        let (network, _) = self.discriminator.as_ref().expect("there is a second phase only with it");
        let kind = self.recipe.optimization.precision.kind();
        let mut losses = Losses::new();
        let real = network.forward(&batch.images.to_kind(kind), Mode::Train);
        for (name, fake) in ["hinge", "direct_hinge"].into_iter().zip(&batch.fakes) {
            let fake = network.forward(fake, Mode::Train);
            losses.add(name, adversarial::hinge_discriminator(&real, &fake), a.weight);
            if name == "hinge" {
                losses.observe("logits_real", &real.mean(Kind::Float));
                losses.observe("logits_fake", &fake.mean(Kind::Float));
            }
        }
        losses
    }
}
