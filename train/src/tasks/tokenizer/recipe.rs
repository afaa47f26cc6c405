//! Recipe of a tokenizer's training.

use std::path::PathBuf;

use backbones::{EfficientNetSize, WeightSource};
use base::config::Document;
use serde::{Deserialize, Serialize};
use tokenizer::{GigaTokConfig, TokenizerConfig};

use super::cost;
use super::losses::{LAST_LAYER, TokenizerLosses};
use crate::cost::RunCost;
use crate::recipe::{ImageData, Recipe, at_least_zero, recipe, with_overrides};
use crate::{Error, Result};

recipe! {
    /// Everything that decides a tokenizer's training.
    TokenizerRecipe {
        model {
            /// The tokenizer.
            model: TokenizerConfig,
            /// Initial weights other than the published ones.
            #[serde(default)]
            init: Initialization,
        }
        data {
            /// The images.
            data: ImageData,
            /// Classifies the reconstructions of held-out images at each validation.
            #[serde(default)]
            classifier: Option<Classifier>,
            /// The objective.
            losses: TokenizerLosses,
        }
    }
}

/// An ImageNet-1k classifier of reconstructions during training: `class_agreement` in the log is
/// the share of reconstructions that it classifies as labelled, among the classes of the held-out
/// images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classifier {
    /// `lite0` … `lite4` of EfficientNet-Lite.
    pub size: EfficientNetSize,
    /// Its weights. Null: the public file in the weights folder.
    #[serde(default)]
    pub weights: Option<WeightSource>,
}

/// Initial weights. The published standard deviations suit widths of 512 and more; in narrow models
/// every layer adds little at first, and a 1-D decoder, whose queries start out equal, outputs the
/// mean colour for a long time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Initialization {
    /// Standard deviation of linear and convolution weights; 0.02 as published.
    pub weight_std: Option<f64>,
    /// Standard deviation of position tables; 1/√width as published.
    pub position_std: Option<f64>,
    /// Weights of `model.vision`. Null: the public file in the weights folder.
    pub vision: Option<WeightSource>,
    /// ICNR (Aitken et al., arXiv 1707.02937): equal weights for all positions of a block that a
    /// convolution computes as channels (depth-to-space, `stem`), so that there is no checkerboard
    /// pattern at first; `model.cnn.smooth` prevents one later. Off as published.
    pub icnr: bool,
}

impl Initialization {
    fn check(&self) -> Result<()> {
        let numbers = [("init.weight_std", self.weight_std), ("init.position_std", self.position_std)];
        numbers.into_iter().try_for_each(|(key, std)| at_least_zero(key, std.unwrap_or(0.0)))
    }
}

impl Recipe for TokenizerRecipe {
    fn cost(&self) -> Result<RunCost> {
        cost::cost(&self.model, &self.losses, &self.optimization)
    }

    fn check(&self) -> Result<()> {
        TokenizerRecipe::check(self)
    }

    fn images(&self) -> Option<(&ImageData, i64)> {
        Some((&self.data, self.model.image_size()))
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let losses = self.losses.paths().into_iter();
        let vision = self.init.vision.as_mut().and_then(WeightSource::path_mut);
        let classifier = self.classifier.as_mut().and_then(|c| c.weights.as_mut()?.path_mut());
        losses
            .chain(vision)
            .chain(classifier)
            .chain(self.data.paths())
            .chain(self.init_from.iter_mut())
            .collect()
    }
}

impl TokenizerRecipe {
    /// Reads a recipe with `key=value` changes.
    ///
    /// # Errors
    /// Returns an error for an unknown key or a value of the wrong type.
    pub fn from_document(document: &Document, changes: &[String]) -> Result<Self> {
        with_overrides(document, changes)
    }

    /// A warning about a discriminator that starts after the run's last step.
    pub fn never_reached(&self) -> Option<String> {
        let (start, steps) = (self.losses.adversarial.as_ref()?.start_step, self.optimization.steps);
        (start > steps).then(|| {
            format!(
                "losses.adversarial begins with step {start}, and the run ends with step {steps}: no discriminator will \
                 be trained"
            )
        })
    }

    /// Refuses settings that contradict each other.
    ///
    /// # Errors
    /// Returns an error that names the settings.
    pub fn check(&self) -> Result<()> {
        self.optimization.check()?;
        self.data.check("data")?;
        self.init.check()?;
        if self.init.icnr && !self.model.cnn().has_sub_pixels() {
            let message = "init.icnr: the decoder has no sub-pixel convolution; they come with `upsample: \
                           depth_to_space` and with a `stem` above 1";
            return Err(Error::Recipe(message.into()));
        }
        let (size, batch) = (self.model.image_size(), self.optimization.micro_batch_size() as i64);
        self.losses.check(size)?;
        if let Some(semantic) = &self.losses.semantic {
            super::aux_networks::check(semantic, &self.model)?;
        }
        if let TokenizerConfig::Gigatok(GigaTokConfig { vision: Some(_), .. }) = self.model
            && !self.freeze.iter().any(|pattern| pattern == "vision")
        {
            return Err(Error::Recipe(
                "model.vision stays as it is: add `vision` to `freeze` (freeze='[vision]')".into(),
            ));
        }
        if let Some(adversarial) = &self.losses.adversarial {
            adversarial.check(size, batch)?;
            let frozen = self.freeze.iter().find(|pattern| weights::matches(pattern, LAST_LAYER));
            if let Some(pattern) = frozen.filter(|_| adversarial.adaptive) {
                return Err(Error::Recipe(format!(
                    "losses.adversarial.adaptive compares gradients at the decoder's last layer, which `freeze` keeps as \
                     it is (`{pattern}`); set either"
                )));
            }
        }
        Ok(self.model.check()?)
    }
}
