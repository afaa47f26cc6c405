//! Frozen networks that guide the tokenizer: perceptual loss and semantic teacher.

use backbones::{DinoConfig, DinoTeacher, FeatureCnn, HeadDropout, Lpips, LpipsNet, WeightSource};
use base::{Precision, TensorKind};
use tch::{Device, Tensor};
use tokenizer::TokenizerConfig;

use super::recipe::{Perceptual, Semantic, Teacher, TokenizerRecipe};
use crate::losses::perceptual::{FeatureLoss, LpipsLoss, PerceptualLoss};
use crate::losses::semantic::{self, SemanticTeacher};
use crate::{Error, Losses, Result};

/// What the recipe asks for. Nothing here is trained or saved.
#[derive(Debug)]
pub(super) struct Guides {
    perceptual: Option<(f64, Box<dyn PerceptualLoss>)>,
    teacher: Option<(f64, Box<dyn SemanticTeacher>)>,
}

impl Guides {
    /// Reads the networks' weights.
    pub(super) fn new(recipe: &TokenizerRecipe, device: Device) -> Result<Self> {
        let (losses, precision) = (&recipe.losses, recipe.optimization.precision);
        let perceptual = losses.perceptual.as_ref().map(|p| perceptual(p, device, precision)).transpose()?;
        let teacher = losses.semantic.as_ref().map(|s| teacher(s, &recipe.model, device)).transpose()?;
        Ok(Guides { perceptual, teacher })
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

    /// Adds the distance of the tokenizer's projected features (B, P, teacher width) from the teacher's.
    pub(super) fn semantic(&self, losses: &mut Losses, images: &Tensor, aligned: Option<&Tensor>) {
        if let Some((weight, teacher)) = &self.teacher {
            let aligned = aligned.expect("a recipe with a teacher has an aligned layer");
            losses.add("semantic", semantic::alignment(aligned, &teacher.features(images)), *weight);
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

fn teacher(
    recipe: &Semantic,
    model: &TokenizerConfig,
    device: Device,
) -> Result<(f64, Box<dyn SemanticTeacher>)> {
    let Teacher::Dinov2 { size, weights } = &recipe.teacher;
    let weights =
        given(weights, "DINOv2 (`dinov2_vit{s,b,l,g}14_pretrain.pth`)", "losses.semantic.teacher.weights")?;
    let teacher = DinoTeacher::open(weights, &DinoConfig::published(*size, false), device)?;
    fits(&teacher, model)?;
    Ok((recipe.weight, Box::new(teacher)))
}

/// That student and teacher see the same grid at the same width; nothing resamples between them.
fn fits(teacher: &dyn SemanticTeacher, model: &TokenizerConfig) -> Result<()> {
    let fail = |message: String| Err(Error::Recipe(format!("losses.semantic: {message}")));
    let (alignment, grid) = match model {
        TokenizerConfig::Gigatok(c) => (c.alignment, c.grid()),
        TokenizerConfig::LlamagenVq(_) => (None, 0),
    };
    let Some(alignment) = alignment else {
        return fail("the model aligns no layer with the teacher; give `model.alignment`".into());
    };
    let (positions, width) = (teacher.positions(), teacher.width());
    if positions != grid * grid || width != alignment.width {
        return fail(format!(
            "the teacher gives {positions} features of width {width}, the model {} of {}; see `model.image_size` and \
             `model.alignment.width`",
            grid * grid,
            alignment.width
        ));
    }
    Ok(())
}
