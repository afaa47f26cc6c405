//! Frozen networks that guide the tokenizer: perceptual loss and semantic teacher.

use backbones::{FeatureCnn, HeadDropout, Lpips, LpipsNet};
use base::Precision;
use tch::{Device, Tensor};

use super::recipe::{Perceptual, TokenizerLosses};
use crate::losses::perceptual::{FeatureLoss, LpipsLoss, PerceptualLoss};
use crate::{Error, Losses, Result};

/// What the recipe asks for. Nothing here is trained or saved.
#[derive(Debug)]
pub(super) struct Guides {
    perceptual: Option<(f64, Box<dyn PerceptualLoss>)>,
}

impl Guides {
    /// Reads the networks' weights.
    pub(super) fn new(losses: &TokenizerLosses, device: Device, precision: Precision) -> Result<Self> {
        let perceptual = losses.perceptual.as_ref().map(|p| perceptual(p, device, precision)).transpose()?;
        Ok(Guides { perceptual })
    }

    /// Adds the perceptual distance of a reconstruction under `name`.
    pub(super) fn perceptual(
        &self,
        losses: &mut Losses,
        name: &'static str,
        target: &Tensor,
        image: &Tensor,
    ) {
        if let Some((weight, network)) = &self.perceptual {
            losses.add(name, network.distance(target, image), *weight);
        }
    }
}

fn perceptual(
    recipe: &Perceptual,
    device: Device,
    precision: Precision,
) -> Result<(f64, Box<dyn PerceptualLoss>)> {
    match recipe {
        Perceptual::Features { weight, network } => {
            let (network, _) = FeatureCnn::open(network, device, precision)?;
            Ok((*weight, Box::new(FeatureLoss { network, kind: precision.kind() })))
        }
        Perceptual::Lpips { weight, trunk, heads, dropout } => {
            let missing = |network, key| Error::NoWeights { network, key };
            let trunk = trunk.as_ref().ok_or_else(|| {
                missing("VGG16 (torchvision's `vgg16-397923af.pth`)", "losses.perceptual.trunk")
            })?;
            let heads = heads
                .as_ref()
                .ok_or_else(|| missing("LPIPS (`vgg.pth` of version 0.1)", "losses.perceptual.heads"))?;
            let (network, _) = Lpips::open_with_id(trunk, heads, LpipsNet::Vgg, device)?;
            let dropout = if *dropout { HeadDropout::AsTrained } else { HeadDropout::Off };
            Ok((*weight, Box::new(LpipsLoss { network, dropout })))
        }
    }
}
