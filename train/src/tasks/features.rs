//! Training a small classifier on labelled images. Its features serve a tokenizer's training as
//! perceptual loss or teacher.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use backbones::{FeatureCnn, FeatureCnnConfig};
use base::config::{Document, to_yaml};
use base::{Build, ImagesU8, Mode, TensorKind, Vars};
use data::{Batch, Class, Dataset, Target};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};
use weights::KeyMap;

use super::images::{self, ImageSets};
use crate::cost::{RunCost, element_bytes, frozen};
use crate::files::write_atomically;
use crate::recipe::{ImageData, Recipe, recipe, with_overrides};
use crate::share::Share;
use crate::task::{InitPolicy, Module, Phase, Task};
use crate::{Error, Losses, Result};

recipe! {
    /// Everything that decides the training of a feature network.
    FeaturesRecipe {
        model {
            /// The network, except its classes, which come from the data.
            model: FeaturesModel,
        }
        data {
            /// The labelled images.
            data: ImageData,
        }
    }
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
    fn cost(&self) -> Result<RunCost> {
        let FeaturesModel { image_size, widths } = &self.model;
        let bytes = element_bytes(self.optimization.precision);
        let counter = frozen::stages(&frozen::cnn_stages(widths), *image_size, bytes);
        let inputs = std::iter::once(&3).chain(widths);
        let stage = |(inputs, w): (&i64, &i64)| (9 * (inputs + w) * w + 4 * w) as f64;
        let mut run = RunCost::new(inputs.zip(widths).map(stage).sum(), &self.optimization);
        run.flops_per_image = 3.0 * counter.flops;
        // Each convolution's output goes through a norm and a ReLU.
        run.activations_per_image = 3.0 * counter.activation_bytes;
        run.uncounted.push("the classifier at its end");
        Ok(run)
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
        self.data.check("data")?;
        self.optimization.check()
    }

    fn images(&self) -> Option<(&ImageData, i64)> {
        Some((&self.data, self.model.image_size))
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        self.data.paths().chain(self.init_from.iter_mut()).collect()
    }
}

impl FeaturesRecipe {
    /// Reads a recipe with `key=value` changes.
    ///
    /// # Errors
    /// Returns an error for an unknown key or a value of the wrong type.
    pub fn from_document(document: &Document, changes: &[String]) -> Result<Self> {
        with_overrides(document, changes)
    }
}

/// A feature network in training.
pub struct FeaturesTask {
    recipe: FeaturesRecipe,
    config: FeatureCnnConfig,
    vars: Vars,
    model: FeatureCnn,
    data: ImageSets,
}

/// Images (B, 3, H, W) in [-1, 1] and their positions in the list of classes (B).
#[derive(Debug)]
pub struct LabelledBatch {
    images: Tensor,
    classes: Tensor,
}

const PHASES: [Phase; 1] = [Phase { name: "model", start: 1 }];

impl FeaturesTask {
    /// Initialises the weights on `device` and opens the data.
    ///
    /// # Errors
    /// Returns an error if the recipe contradicts itself, there are no images, or they have fewer
    /// than two classes.
    pub fn new(recipe: FeaturesRecipe, device: Device) -> Result<Self> {
        recipe.check()?;
        let size = recipe.model.image_size;
        let batch = recipe.optimization.micro_batch_size();
        let data = ImageSets::open(&recipe.data, size, batch, recipe.seed)?;
        let train = data.train.dataset();
        if let Some(held_out) = &data.validation {
            images::same_classes(train.classes(), held_out.dataset().classes())?;
            known_classes(train.classes(), held_out.dataset().as_ref())?;
        }
        let classes: Vec<i64> = train.classes().iter().map(|c| c.index).collect();
        if classes.len() < 2 {
            return Err(Error::Recipe(format!(
                "{}: a classifier needs images of at least two classes, such as a folder for each",
                train.describe()
            )));
        }
        let config = FeatureCnnConfig { image_size: size, widths: recipe.model.widths.clone(), classes };
        tch::manual_seed(recipe.seed as i64);
        let vars = Vars::new(device, Kind::Float, Build::Random);
        let model = FeatureCnn::new(&vars.root(), &config);
        Ok(FeaturesTask { recipe, config, vars, model, data })
    }

    /// Size of the model and its data in one line.
    pub fn describe(&self) -> String {
        let millions = self.vars.num_parameters() as f64 / 1e6;
        format!("classifier of {millions:.2} M parameters; {}", self.data.train.dataset().describe())
    }

    fn to_device(&self, images: &ImagesU8, labels: &[i64]) -> Result<LabelledBatch> {
        let index = |label: &i64| {
            let found = self.config.classes.binary_search(label);
            found.map(|i| i as i64).map_err(|_| {
                Error::Recipe(match *label {
                    data::NO_CLASS => "an image without a class: a classifier needs a label for each".into(),
                    label => format!("label {label} does not occur in the training images"),
                })
            })
        };
        let classes = labels.iter().map(index).collect::<Result<Vec<i64>>>()?;
        let device = self.vars.device();
        let images = images::to_device(images, device)?.to_float().into_tensor();
        Ok(LabelledBatch { images, classes: Tensor::from_slice(&classes).to_device(device) })
    }
}

/// Refuses held-out images of classes without training images: the classifier has no output for
/// them.
fn known_classes(train: &[Class], held_out: &dyn Dataset) -> Result<()> {
    let known: BTreeSet<i64> = train.iter().map(|class| class.index).collect();
    for index in 0..held_out.len() {
        let class = match held_out.target(index) {
            Target::Class(label) if known.contains(&label) => continue,
            Target::Class(label) => {
                let class = held_out.classes().iter().find(|class| class.index == label);
                let name = class.map(|class| format!(" (`{}`)", class.name)).unwrap_or_default();
                format!("class {label}{name}, which does not occur in the training images")
            }
            _ => "no class".to_owned(),
        };
        let message = format!("{}: `{}` is of {class}", held_out.describe(), held_out.key(index));
        return Err(Error::Recipe(message));
    }
    Ok(())
}

impl Task for FeaturesTask {
    type Batch = LabelledBatch;
    type Recipe = FeaturesRecipe;
    type Data = ImageSets;

    fn recipe(&self) -> &FeaturesRecipe {
        &self.recipe
    }

    fn data(&self) -> &ImageSets {
        &self.data
    }

    fn data_mut(&mut self) -> &mut ImageSets {
        &mut self.data
    }

    fn phases(&self) -> &[Phase] {
        &PHASES
    }

    fn module(&self, _phase: usize) -> Module<'_> {
        Module { name: "model", vars: &self.vars }
    }

    /// The classifier may have other classes.
    fn init_policy(&self) -> InitPolicy {
        InitPolicy { map: KeyMap::identity(), reinit_allowed: &["head"], known: Vec::new }
    }

    fn prepare(&self, batch: Batch) -> Result<LabelledBatch> {
        self.to_device(&batch.images, &batch.labels)
    }

    fn losses(&self, batch: &mut LabelledBatch, _phase: usize, _step: u64) -> Result<Losses> {
        let kind = self.recipe.optimization.precision.kind();
        let logits = self.model.logits(&batch.images.to_kind(kind), Mode::Train);
        let mut losses = Losses::new();
        losses.add("loss", classification(&logits, &batch.classes), 1.0);
        Ok(losses)
    }

    /// `loss`, and `top1`, the share of held-out images classified correctly.
    fn validate(&mut self, share: Share<'_>) -> Result<Vec<(&'static str, f64)>> {
        let Some(mut loader) = self.data.validation.take() else { return Ok(vec![]) };
        let _guard = tch::no_grad_guard();
        let rows = images::each_batch(&mut loader, |images, labels| {
            let batch = self.to_device(images, labels)?;
            let logits = self.model.logits(&batch.images, Mode::Eval);
            let n = labels.len() as f64;
            let loss = n * classification(&logits, &batch.classes).double_value(&[]);
            let hits = logits.argmax(-1, false).eq_tensor(&batch.classes);
            Ok([loss, hits.sum(Kind::Double).double_value(&[]), n])
        });
        self.data.validation = Some(loader);
        let [loss, right, count] = share.sum(&rows?)?;
        Ok(if count == 0.0 { vec![] } else { vec![("loss", loss / count), ("top1", right / count)] })
    }

    fn write_model_files(&self, dir: &Path) -> Result<()> {
        write_atomically(&dir.join("config.yaml"), to_yaml(&self.config)?.as_bytes())?;
        write_atomically(
            &dir.join("classes.tsv"),
            data::to_tsv(self.data.train.dataset().classes()).as_bytes(),
        )
    }
}

/// Mean cross-entropy with a label smoothing of 0.1, which keeps features from saturating.
fn classification(logits: &Tensor, classes: &Tensor) -> Tensor {
    logits.to_kind(Kind::Float).cross_entropy_loss::<Tensor>(classes, None, Reduction::Mean, -100, 0.1)
}
