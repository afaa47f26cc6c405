//! Training a small classifier on labelled images, whose features then guide a tokenizer's training.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use backbones::{FeatureCnn, FeatureCnnConfig};
use base::config::{Document, to_yaml};
use base::{Build, ImagesU8, Mode, TensorKind, Vars};
use data::{Class, Dataset, LeftOut, Loader, Target};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};
use weights::KeyMap;

use super::images;
use crate::initial::Adoption;
use crate::recipe::{ImageData, Intervals, Optimization, with_overrides};
use crate::state::write_atomically;
use crate::task::{Common, DataFacts, Module, Phase, Recipe, Task};
use crate::{Error, Losses, Plan, Result, plan};

/// Everything that decides the training of a feature network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesRecipe {
    /// Seed of the first weights, the order of the data and augmentation.
    pub seed: u64,
    /// The network, but for its classes, which are the data's.
    pub model: FeaturesModel,
    /// A checkpoint or a model's directory whose weights it begins with (`--init-from`).
    #[serde(default)]
    pub init_from: Option<PathBuf>,
    /// Parameters that are not trained: names or their beginnings, `*` for one part (`layers.*.attention`).
    #[serde(default)]
    pub freeze: Vec<String>,
    /// The labelled images.
    pub data: ImageData,
    /// How.
    pub optimization: Optimization,
    /// How often to log, validate and save, in steps.
    pub every: Intervals,
}

/// Sizes of a [`FeatureCnn`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesModel {
    /// Side of the square images, pixels.
    pub image_size: i64,
    /// Channels of each stage, finest first.
    pub widths: Vec<i64>,
}

impl Recipe for FeaturesRecipe {
    fn common(&self) -> Common<'_> {
        Common {
            seed: self.seed,
            optimization: &self.optimization,
            every: self.every,
            init_from: self.init_from.as_deref(),
            freeze: &self.freeze,
        }
    }

    fn plan(&self) -> Result<Plan> {
        Ok(plan::features(&self.model, &self.optimization))
    }

    fn check(&self) -> Result<()> {
        FeaturesRecipe::check(self)
    }

    fn images(&self) -> Option<(&ImageData, i64)> {
        Some((&self.data, self.model.image_size))
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        self.data.paths().chain(self.init_from.iter_mut()).collect()
    }
}

impl FeaturesRecipe {
    /// A recipe with `key=value` changes.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong kind.
    pub fn from_document(document: &Document, changes: &[String]) -> Result<Self> {
        with_overrides(document, changes)
    }

    fn check(&self) -> Result<()> {
        let FeaturesModel { image_size, widths } = &self.model;
        let halvings = widths.len().saturating_sub(1) as u32;
        if widths.is_empty() || widths.iter().any(|&w| w < 1) || image_size >> halvings < 1 {
            return Err(Error::Recipe(format!(
                "model: {} stages do not fit images of {image_size} pixels; each stage but the first halves the side",
                widths.len()
            )));
        }
        self.optimization.check()
    }
}

/// A feature network in training.
pub struct FeaturesTask {
    recipe: FeaturesRecipe,
    config: FeatureCnnConfig,
    vars: Vars,
    model: FeatureCnn,
    train: Loader,
    validation: Option<Loader>,
}

/// Images (B, 3, H, W) in [-1, 1] and their places in the list of classes (B).
#[derive(Debug)]
pub struct LabelledBatch {
    images: Tensor,
    classes: Tensor,
}

const PHASES: [Phase; 1] = [Phase { name: "model", start: 1 }];

impl FeaturesTask {
    /// Draws the first weights on `device` and opens the data.
    ///
    /// # Errors
    /// The recipe contradicts itself, there are no images, or they have fewer than two classes.
    pub fn new(recipe: FeaturesRecipe, device: Device) -> Result<Self> {
        recipe.check()?;
        let size = recipe.model.image_size;
        let batch = recipe.optimization.micro_batch_size();
        let train = images::training(&recipe.data, size, batch, recipe.seed)?;
        let validation = images::validation(recipe.data.validation.as_deref(), size, batch)?;
        if let Some(held_out) = &validation {
            images::same_classes(train.dataset().classes(), held_out.dataset().classes())?;
            known_classes(train.dataset().classes(), held_out.dataset().as_ref())?;
        }
        let classes: Vec<i64> = train.dataset().classes().iter().map(|c| c.index).collect();
        if classes.len() < 2 {
            return Err(Error::Recipe(format!(
                "{}: a classifier needs images of at least two classes, such as a folder for each",
                train.dataset().describe()
            )));
        }
        let config = FeatureCnnConfig { image_size: size, widths: recipe.model.widths.clone(), classes };
        tch::manual_seed(recipe.seed as i64);
        let vars = Vars::new(device, Kind::Float, Build::Random);
        let model = FeatureCnn::new(&vars.root(), &config);
        Ok(FeaturesTask { recipe, config, vars, model, train, validation })
    }

    /// One line on model and data, for people.
    pub fn describe(&self) -> String {
        let millions = self.vars.num_parameters() as f64 / 1e6;
        format!("classifier of {millions:.2} M parameters; {}", self.train.dataset().describe())
    }

    fn to_device(&self, images: &ImagesU8, labels: &[i64]) -> Result<LabelledBatch> {
        let place = |label: &i64| {
            let found = self.config.classes.binary_search(label);
            found.map(|i| i as i64).map_err(|_| {
                Error::Recipe(match *label {
                    data::NO_CLASS => "an image without a class: a classifier needs a label for each".into(),
                    label => format!("label {label} does not occur in the training images"),
                })
            })
        };
        let classes = labels.iter().map(place).collect::<Result<Vec<i64>>>()?;
        let device = self.vars.device();
        let images = ImagesU8::new(images.tensor().to_device(device)).map_err(tokenizer::Error::from)?;
        let images = images.to_float().into_tensor();
        Ok(LabelledBatch { images, classes: Tensor::from_slice(&classes).to_device(device) })
    }
}

/// Refuses held-out images of classes that no training image has: a classifier has no output for them.
fn known_classes(train: &[Class], held_out: &dyn Dataset) -> Result<()> {
    let known: BTreeSet<i64> = train.iter().map(|class| class.index).collect();
    for index in 0..held_out.len() {
        let what = match held_out.target(index) {
            Target::Class(label) if known.contains(&label) => continue,
            Target::Class(label) => {
                let class = held_out.classes().iter().find(|class| class.index == label);
                let name = class.map(|class| format!(" (`{}`)", class.name)).unwrap_or_default();
                format!("class {label}{name}, which does not occur in the training images")
            }
            _ => "no class".to_owned(),
        };
        let message = format!("{}: `{}` is of {what}", held_out.describe(), held_out.key(index));
        return Err(Error::Recipe(message));
    }
    Ok(())
}

impl Task for FeaturesTask {
    type Batch = LabelledBatch;
    type Recipe = FeaturesRecipe;

    fn recipe(&self) -> &FeaturesRecipe {
        &self.recipe
    }

    fn phases(&self) -> &[Phase] {
        &PHASES
    }

    fn module(&self, _phase: usize) -> Module<'_> {
        Module { name: "model", vars: &self.vars }
    }

    /// The classifier may be one of other classes.
    fn adoption(&self) -> Adoption {
        Adoption { map: KeyMap::identity(), replaceable: &["head"], known: Vec::new }
    }

    fn batch(&mut self) -> Result<LabelledBatch> {
        let batch = self.train.next()?.ok_or_else(|| Error::Recipe("the training data ended".into()))?;
        self.to_device(&batch.images, &batch.labels)
    }

    fn losses(&self, batch: &mut LabelledBatch, _phase: usize, _step: u64) -> Result<Losses> {
        let kind = self.recipe.optimization.precision.kind();
        let logits = self.model.logits(&batch.images.to_kind(kind), Mode::Train);
        let mut losses = Losses::new();
        losses.add("loss", classification(&logits, &batch.classes), 1.0);
        Ok(losses)
    }

    fn position(&self) -> Result<String> {
        images::position(self.train.state())
    }

    fn restore(&mut self, position: &str) -> Result<()> {
        Ok(self.train.restore(images::parse_position(position)?)?)
    }

    fn data(&self) -> Result<DataFacts> {
        Ok(images::facts(&self.train))
    }

    fn left_out(&self) -> Vec<LeftOut> {
        images::left_out(self.train.left_out(), self.validation.as_ref().map(Loader::left_out))
    }

    /// `loss` and `top1`, the share of held-out images whose class is found.
    fn validate(&mut self) -> Result<Vec<(&'static str, f64)>> {
        let Some(mut loader) = self.validation.take() else { return Ok(vec![]) };
        let _guard = tch::no_grad_guard();
        let (mut loss, mut right, mut count) = (0.0, 0.0, 0.0);
        let result = images::each_batch(&mut loader, |images, labels| {
            let batch = self.to_device(images, labels)?;
            let logits = self.model.logits(&batch.images, Mode::Eval);
            let n = labels.len() as f64;
            loss += n * classification(&logits, &batch.classes).double_value(&[]);
            let hits = logits.argmax(-1, false).eq_tensor(&batch.classes);
            right += hits.sum(Kind::Double).double_value(&[]);
            count += n;
            Ok(())
        });
        self.validation = Some(loader);
        result?;
        Ok(if count == 0.0 { vec![] } else { vec![("loss", loss / count), ("top1", right / count)] })
    }

    fn write_model_files(&self, dir: &Path) -> Result<()> {
        write_atomically(&dir.join("config.yaml"), to_yaml(&self.config)?.as_bytes())?;
        write_atomically(&dir.join("classes.tsv"), data::to_tsv(self.train.dataset().classes()).as_bytes())
    }
}

/// Mean cross-entropy with a label smoothing of 0.1, which keeps features from saturating.
fn classification(logits: &Tensor, classes: &Tensor) -> Tensor {
    logits.to_kind(Kind::Float).cross_entropy_loss::<Tensor>(classes, None, Reduction::Mean, -100, 0.1)
}
