//! Frozen networks of the tokenizer's losses: perceptual loss and semantic teacher.

use backbones::{
    DinoConfig, DinoTeacher, EfficientNetLite, FeatureCnn, HeadDropout, Lpips, LpipsNet, PerceptualDistance,
    WeightSource, efficientnet_weights,
};
use base::{Precision, TensorKind};
use tch::{Device, Tensor};
use tokenizer::{GigaTokConfig, TokenizerConfig};

use super::losses::{Perceptual, Semantic, Teacher, TokenizerLosses};
use crate::losses::perceptual::{EfficientNetLoss, FeatureLoss, LpipsLoss, PerceptualLoss};
use crate::losses::semantic::{self, EfficientNetTeacher, FeatureCnnTeacher, SemanticTeacher};
use crate::{Error, Losses, Result};

/// Networks of the recipe's losses. They are neither trained nor saved.
#[derive(Debug)]
pub(super) struct AuxNetworks {
    perceptual: Option<(f64, Box<dyn PerceptualLoss>)>,
    /// Weight, and the teacher; `None` for the model's own vision network.
    teacher: Option<(f64, Option<Box<dyn SemanticTeacher>>)>,
    /// Positions a side of the aligned features.
    grid: i64,
}

impl AuxNetworks {
    /// Reads the networks' weights.
    pub(super) fn new(
        losses: &TokenizerLosses,
        model: &TokenizerConfig,
        precision: Precision,
        device: Device,
    ) -> Result<Self> {
        let perceptual = losses.perceptual.as_ref().map(|p| perceptual(p, device, precision)).transpose()?;
        let teacher = losses.semantic.as_ref().map(|s| teacher(s, model, device, precision)).transpose()?;
        let grid = model.image_size() / model.cnn().patch();
        Ok(AuxNetworks { perceptual, teacher, grid })
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

    /// Adds the distance of the tokenizer's projected features (B, P, teacher width) from the
    /// teacher's; `vision` holds those of the model's own vision network.
    pub(super) fn semantic(
        &self,
        losses: &mut Losses,
        images: &Tensor,
        vision: Option<&Tensor>,
        aligned: Option<&Tensor>,
    ) {
        if let Some((weight, teacher)) = &self.teacher {
            let aligned = aligned.expect("a recipe with a teacher has an aligned layer");
            let map = match teacher {
                Some(teacher) => teacher.map(images),
                None => vision.expect("a recipe whose teacher is `vision` has one").shallow_clone(),
            };
            let wanted = semantic::on_grid(&map, self.grid);
            losses.add("semantic", semantic::alignment(aligned, &wanted), *weight);
        }
    }
}

fn given<'a>(
    weights: &'a Option<WeightSource>,
    network: &'static str,
    key: &'static str,
) -> Result<&'a WeightSource> {
    weights.as_ref().ok_or(Error::NoWeights { network, key })
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
        Perceptual::EfficientnetLite { weight, shift, distance } => {
            let network = PerceptualDistance::open(distance, device, precision)?;
            Ok((*weight, Box::new(EfficientNetLoss { network, shift: *shift })))
        }
        Perceptual::Lpips { weight, trunk, heads, dropout } => {
            let trunk =
                given(trunk, "VGG16 (torchvision's `vgg16-397923af.pth`)", "losses.perceptual.trunk")?;
            let heads = given(heads, "LPIPS (`vgg.pth` of version 0.1)", "losses.perceptual.heads")?;
            let (network, _) = Lpips::open_with_id(trunk, heads, LpipsNet::Vgg, device)?;
            let dropout = if *dropout { HeadDropout::AsTrained } else { HeadDropout::Off };
            Ok((*weight, Box::new(LpipsLoss { network, dropout })))
        }
    }
}

/// Refuses a teacher that the model lacks, or whose features have another width than the aligned
/// ones, if that is known without its files.
pub(super) fn check(recipe: &Semantic, model: &TokenizerConfig) -> Result<()> {
    let width = match &recipe.teacher {
        Teacher::Vision => {
            let TokenizerConfig::Gigatok(GigaTokConfig { vision: Some(vision), .. }) = model else {
                return Err(Error::Recipe("losses.semantic: the model has no `vision`".into()));
            };
            *at(&vision.size.channels(), vision.block, "model.vision.block")?
        }
        Teacher::Dinov2 { size, .. } => DinoConfig::published(*size, false).width,
        Teacher::EfficientnetLite { size, block, .. } => {
            *at(&size.channels(), *block, "losses.semantic.teacher.block")?
        }
        Teacher::Features { .. } => return Ok(()),
    };
    fits(width, model)
}

fn teacher(
    recipe: &Semantic,
    model: &TokenizerConfig,
    device: Device,
    precision: Precision,
) -> Result<(f64, Option<Box<dyn SemanticTeacher>>)> {
    let teacher: Box<dyn SemanticTeacher> = match &recipe.teacher {
        Teacher::Vision => return Ok((recipe.weight, None)),
        Teacher::Dinov2 { size, weights } => {
            let network = "DINOv2 (`dinov2_vit{s,b,l,g}14_pretrain.pth`)";
            let weights = given(weights, network, "losses.semantic.teacher.weights")?;
            Box::new(DinoTeacher::open(weights, &DinoConfig::published(*size, false), device)?)
        }
        Teacher::EfficientnetLite { size, weights, block, upsample } => {
            let width = *at(&size.channels(), *block, "losses.semantic.teacher.block")?;
            let weights = efficientnet_weights(weights.as_ref(), *size)?;
            let network = EfficientNetLite::open(&weights, *size, device, precision)?;
            Box::new(EfficientNetTeacher { network, block: *block, width, upsample: *upsample })
        }
        Teacher::Features { network, stage } => {
            let (network, config) = FeatureCnn::open(network, device, precision)?;
            let width = *at(&config.widths, *stage, "losses.semantic.teacher.stage")?;
            Box::new(FeatureCnnTeacher { network, stage: *stage, width, kind: precision.kind() })
        }
    };
    fits(teacher.width(), model)?;
    Ok((recipe.weight, Some(teacher)))
}

fn at<'a>(widths: &'a [i64], index: usize, key: &str) -> Result<&'a i64> {
    let last = widths.len().saturating_sub(1);
    widths.get(index).ok_or_else(|| Error::Recipe(format!("{key}: must be 0 to {last}, found {index}")))
}

/// Refuses aligned features of another width than the teacher's.
fn fits(width: i64, model: &TokenizerConfig) -> Result<()> {
    let fail = |message: String| Err(Error::Recipe(format!("losses.semantic: {message}")));
    let alignment = match model {
        TokenizerConfig::Gigatok(c) => c.alignment,
        TokenizerConfig::LlamagenVq(_) => None,
    };
    let Some(alignment) = alignment else {
        return fail("the model aligns no layer with the teacher; set `model.alignment`".into());
    };
    if width != alignment.width {
        return fail(format!(
            "the teacher's features have width {width}, `model.alignment.width` is {}",
            alignment.width
        ));
    }
    Ok(())
}
