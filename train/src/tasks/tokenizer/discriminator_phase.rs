//! The discriminator in training: its terms of the generator's loss, and its own phase.

use base::{Build, Mode, Precision, Vars};
use tch::{Device, Kind, Tensor};

use super::losses::Adversarial;
use crate::discriminator::{DiffAug, Discriminator, Draws};
use crate::losses::adversarial::{AdversarialLoss, adaptive_weight, gradient_penalty};
use crate::losses::lecam::LeCam;
use crate::{Losses, Result};

/// Default of R3GAN's γ.
const GAMMA: f64 = 15.0;

/// Steps from the discriminator's first one to the start of LeCam's averages.
const LECAM_DELAY: u64 = 1000;

/// A discriminator, its losses, and its variables.
#[derive(Debug)]
pub(super) struct DiscriminatorPhase {
    recipe: Adversarial,
    network: Box<dyn Discriminator>,
    lecam: Option<LeCam>,
    vars: Vars,
}

impl DiscriminatorPhase {
    /// Initialises the discriminator.
    pub(super) fn new(
        recipe: &Adversarial,
        image_size: i64,
        device: Device,
        precision: Precision,
    ) -> Result<Self> {
        let vars = Vars::new(device, Kind::Float, Build::Random);
        let network = recipe.discriminator.build(&vars.root(), image_size, precision)?;
        let lecam =
            recipe.lecam.map(|_| LeCam::new(&(&vars.root() / "lecam"), recipe.start_step + LECAM_DELAY));
        Ok(DiscriminatorPhase { recipe: recipe.clone(), network, lecam, vars })
    }

    /// Trained and saved variables.
    pub(super) fn vars(&self) -> &Vars {
        &self.vars
    }

    /// First step, from 1, of the phase.
    pub(super) fn start_step(&self) -> u64 {
        self.recipe.start_step
    }

    fn logits(&self, images: &Tensor, kind: Kind) -> Tensor {
        let augmented = self.recipe.diffaug.as_ref().map(|a: &DiffAug| {
            let draws = Draws::new(images.size()[0], images.device());
            a.apply(images, &draws)
        });
        self.network.logits(augmented.as_ref().unwrap_or(images), kind, Mode::Train)
    }

    /// Adds the generator's terms at a step, one for each reconstruction in `fake`. `nll` is the
    /// reconstruction loss and the decoder's last layer, whose gradients the adaptive weight
    /// compares.
    pub(super) fn generator(
        &self,
        losses: &mut Losses,
        real: &Tensor,
        fake: &[Tensor],
        kind: Kind,
        step: u64,
        nll: Option<(&Tensor, &Tensor)>,
    ) {
        let weight = self.recipe.weight_at(step);
        let fake_logits: Vec<Tensor> = fake.iter().map(|fake| self.logits(fake, kind)).collect();
        let real_logits = self.recipe.loss.is_relative().then(|| self.logits(real, kind));
        let mut scale = None;
        for (name, fake_logits) in ["adversarial", "direct_adversarial"].into_iter().zip(&fake_logits) {
            let term = self.recipe.loss.generator(real_logits.as_ref(), fake_logits);
            if let (None, Some((nll, last_layer)), true) = (&scale, nll, self.recipe.adaptive) {
                scale = Some(adaptive_weight(nll, &term, last_layer));
            }
            match &scale {
                Some(scale) => losses.add_scaled(name, term, weight, scale),
                None => losses.add(name, term, weight),
            }
        }
        if let Some(scale) = scale {
            losses.observe("adaptive_weight", &scale);
        }
    }

    /// The discriminator's losses, on real images and detached reconstructions.
    pub(super) fn discriminator(&self, real: &Tensor, fake: &[Tensor], kind: Kind, step: u64) -> Losses {
        let penalised = self.recipe.loss == AdversarialLoss::R3gan;
        // New leaves in fp32, by which R1 and R2 differentiate.
        let leaf = |images: &Tensor| {
            let images = images.detach();
            if penalised { images.to_kind(Kind::Float).copy().set_requires_grad(true) } else { images }
        };
        let real = leaf(real);
        let fake: Vec<Tensor> = fake.iter().map(leaf).collect();
        let (real_logits, fake_logits) = self.all_logits(&real, &fake, kind);

        let mut losses = Losses::new();
        let weight = self.recipe.weight;
        for (i, (fake, fake_logits)) in fake.iter().zip(&fake_logits).enumerate() {
            losses.add(
                names(self.recipe.loss)[i.min(1)],
                self.recipe.loss.discriminator(&real_logits, fake_logits),
                weight,
            );
            if penalised {
                let gamma = self.recipe.gamma.unwrap_or(GAMMA);
                let [r1, r2] = [["r1", "r2"], ["direct_r1", "direct_r2"]][i.min(1)];
                losses.add(r1, gradient_penalty(&real_logits, &real, gamma), weight);
                losses.add(r2, gradient_penalty(fake_logits, fake, gamma), weight);
            }
            if let Some(lecam) = &self.lecam {
                lecam.update(&real_logits, fake_logits, step);
            }
        }
        let first = fake_logits.first().expect("there is a reconstruction");
        if let (Some(lecam), Some(config)) = (&self.lecam, self.recipe.lecam)
            && step > self.recipe.start_step
        {
            losses.add("lecam", lecam.penalty(&real_logits, first), config.weight);
        }
        losses.observe("logits_real", &real_logits.mean(Kind::Float));
        losses.observe("logits_fake", &first.mean(Kind::Float));
        losses
    }

    /// Logits of real images and reconstructions in the official order, on which running statistics
    /// and power iterations depend.
    fn all_logits(&self, real: &Tensor, fake: &[Tensor], kind: Kind) -> (Tensor, Vec<Tensor>) {
        let early = usize::from(self.recipe.discriminator.fake_first()).min(fake.len());
        let mut fake_logits: Vec<Tensor> = fake[..early].iter().map(|f| self.logits(f, kind)).collect();
        let real_logits = self.logits(real, kind);
        fake_logits.extend(fake[early..].iter().map(|f| self.logits(f, kind)));
        (real_logits, fake_logits)
    }
}

/// Log names of the loss of a reconstruction and of one that skips the quantizer.
fn names(loss: AdversarialLoss) -> [&'static str; 2] {
    match loss {
        AdversarialLoss::Hinge => ["hinge", "direct_hinge"],
        AdversarialLoss::Vanilla => ["vanilla", "direct_vanilla"],
        AdversarialLoss::NonSaturating => ["non_saturating", "direct_non_saturating"],
        AdversarialLoss::R3gan => ["relativistic", "direct_relativistic"],
    }
}
