//! The discriminator in training: its part in the generator's loss, and its own phase.

use base::{Build, Mode, Precision, Vars};
use tch::{Device, Kind, Tensor};

use super::recipe::Adversarial;
use crate::discriminator::{DiffAug, Discriminator, Draws};
use crate::losses::adversarial::{AdversarialLoss, adaptive_weight, gradient_penalty};
use crate::losses::lecam::LeCam;
use crate::{Losses, Result};

/// R3GAN's γ where a recipe gives none.
const GAMMA: f64 = 15.0;

/// Steps after the discriminator's first one from which LeCam's averages run.
const LECAM_DELAY: u64 = 1000;

/// A discriminator, its losses, and its variables.
#[derive(Debug)]
pub(super) struct Adversary {
    recipe: Adversarial,
    network: Box<dyn Discriminator>,
    lecam: Option<LeCam>,
    vars: Vars,
}

impl Adversary {
    /// Draws the discriminator's first weights.
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
        Ok(Adversary { recipe: recipe.clone(), network, lecam, vars })
    }

    /// Everything that is trained or saved.
    pub(super) fn vars(&self) -> &Vars {
        &self.vars
    }

    /// The first step, from 1, that it takes part in.
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

    /// Adds the generator's terms at a step: for each reconstruction its name's. `nll` is the reconstruction loss that the
    /// adaptive weight compares with, by the gradient at the decoder's last layer.
    pub(super) fn generator(
        &self,
        losses: &mut Losses,
        photographs: &Tensor,
        fakes: &[Tensor],
        kind: Kind,
        step: u64,
        nll: Option<(&Tensor, &Tensor)>,
    ) {
        let weight = self.recipe.weight_at(step);
        let logits: Vec<Tensor> = fakes.iter().map(|fake| self.logits(fake, kind)).collect();
        let real = self.recipe.loss.is_relative().then(|| self.logits(photographs, kind));
        let mut scale = None;
        for (name, fake) in ["adversarial", "direct_adversarial"].into_iter().zip(&logits) {
            let term = self.recipe.loss.generator(real.as_ref(), fake);
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

    /// The discriminator's own losses, on photographs and detached reconstructions.
    pub(super) fn discriminator(
        &self,
        photographs: &Tensor,
        fakes: &[Tensor],
        kind: Kind,
        step: u64,
    ) -> Losses {
        let penalised = self.recipe.loss == AdversarialLoss::R3gan;
        // Leaves of their own, in fp32, which R1 and R2 differentiate by.
        let leaf = |images: &Tensor| {
            let images = images.detach();
            if penalised { images.to_kind(Kind::Float).copy().set_requires_grad(true) } else { images }
        };
        let photographs = leaf(photographs);
        let fakes: Vec<Tensor> = fakes.iter().map(leaf).collect();
        let (real, logits) = self.all_logits(&photographs, &fakes, kind);

        let mut losses = Losses::new();
        let weight = self.recipe.weight;
        for (i, (fake_images, fake)) in fakes.iter().zip(&logits).enumerate() {
            losses.add(
                names(self.recipe.loss)[i.min(1)],
                self.recipe.loss.discriminator(&real, fake),
                weight,
            );
            if penalised {
                let gamma = self.recipe.gamma.unwrap_or(GAMMA);
                let [r1, r2] = [["r1", "r2"], ["direct_r1", "direct_r2"]][i.min(1)];
                losses.add(r1, gradient_penalty(&real, &photographs, gamma), weight);
                losses.add(r2, gradient_penalty(fake, fake_images, gamma), weight);
            }
            if let Some(lecam) = &self.lecam {
                lecam.update(&real, fake, step);
            }
        }
        let first = logits.first().expect("there is a reconstruction");
        if let (Some(lecam), Some(config)) = (&self.lecam, self.recipe.lecam)
            && step > self.recipe.start_step
        {
            losses.add("lecam", lecam.penalty(&real, first), config.weight);
        }
        losses.observe("logits_real", &real.mean(Kind::Float));
        losses.observe("logits_fake", &first.mean(Kind::Float));
        losses
    }

    /// In the official order, on which running statistics and power iterations depend.
    fn all_logits(&self, photographs: &Tensor, fakes: &[Tensor], kind: Kind) -> (Tensor, Vec<Tensor>) {
        let early = usize::from(self.recipe.discriminator.fakes_first()).min(fakes.len());
        let mut logits: Vec<Tensor> = fakes[..early].iter().map(|f| self.logits(f, kind)).collect();
        let real = self.logits(photographs, kind);
        logits.extend(fakes[early..].iter().map(|f| self.logits(f, kind)));
        (real, logits)
    }
}

/// What the loss of a reconstruction, and of one that bypasses the quantizer, is called in logs.
fn names(loss: AdversarialLoss) -> [&'static str; 2] {
    match loss {
        AdversarialLoss::Hinge => ["hinge", "direct_hinge"],
        AdversarialLoss::Vanilla => ["vanilla", "direct_vanilla"],
        AdversarialLoss::NonSaturating => ["non_saturating", "direct_non_saturating"],
        AdversarialLoss::R3gan => ["relativistic", "direct_relativistic"],
    }
}
