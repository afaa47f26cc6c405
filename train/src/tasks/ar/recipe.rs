//! Recipe of a transformer's training.

use std::path::PathBuf;

use ar_model::{ArConfig, ConditioningConfig, Gpt, ModulationConfig};
use base::config::Document;
use base::{Build, Precision, Vars};
use tch::{Device, Kind};
use tokenizer::TokenizerSpec;

use crate::cost::{RunCost, element_bytes};
use crate::losses::language::LOGITS_AT_A_TIME;
use crate::recipe::{Recipe, recipe, with_overrides};
use crate::tasks::codes::ArData;
use crate::tasks::text::TextRecipe;
use crate::{Error, Result};

recipe! {
    /// Everything that decides a transformer's training, except the tokenizer.
    ArRecipe {
        model {
            /// The transformer. In a file, `vocab_size` and `num_tokens` may be null and then come
            /// from the tokenizer.
            model: ArConfig,
        }
        data {
            /// Training data.
            data: ArData,
            /// Text features, for a text-conditional transformer.
            #[serde(default)]
            text: Option<TextRecipe>,
            /// Recompute each layer's activations in the backward pass instead of keeping them:
            /// about a third more arithmetic, and memory for one layer's activations instead of all
            /// layers'.
            #[serde(default)]
            recompute: bool,
        }
    }
}

impl Recipe for ArRecipe {
    fn cost(&self) -> Result<RunCost> {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
        Gpt::new(&vars.root(), &self.model)?;
        let mut run = RunCost::new(vars.num_parameters() as f64, &self.optimization);
        let (model, precision) = (self.model.cost(), self.optimization.precision);
        run.flops_per_image = model.training_flops(self.recompute);
        run.positions = Some(model.positions());
        run.activations_per_image = model.activation_bytes(element_bytes(precision), self.recompute);
        // The loss: a part of the logits in three forms, and the gradient of the output layer.
        let output = (self.model.vocab_size * self.model.width) as f64;
        run.workspace = 3.0 * 4.0 * LOGITS_AT_A_TIME as f64 + 4.0 * output;
        if precision != Precision::Fp32 {
            // Weights in the activations' dtype, kept for the backward pass; with `recompute`,
            // those of one layer at a time.
            let parts = if self.recompute { self.model.layers as f64 } else { 1.0 };
            run.workspace += 2.0 * run.parameters / parts;
        }
        if self.data.codes.is_empty() {
            run.uncounted.push("the tokenizer, where images are encoded on the fly");
        }
        Ok(run)
    }

    fn check(&self) -> Result<()> {
        self.optimization.check()?;
        self.model.check()?;
        self.data.images.check("data.images")?;
        self.check_conditioning()?;
        if self.recompute && self.model.modulation != ModulationConfig::None {
            return Err(Error::Recipe("recompute: not supported with adaptive layer norms".into()));
        }
        self.text.as_ref().map_or(Ok(()), TextRecipe::check)
    }

    fn can_recompute(&self) -> bool {
        !self.recompute && self.model.modulation == ModulationConfig::None
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let data = &mut self.data;
        let codes = data.codes.iter_mut().chain(data.validation_codes.iter_mut());
        let texts = self.text.iter_mut().flat_map(TextRecipe::paths);
        codes.chain(data.images.paths()).chain(self.init_from.iter_mut()).chain(texts).collect()
    }
}

impl ArRecipe {
    fn check_conditioning(&self) -> Result<()> {
        match (self.model.conditioning, &self.text) {
            (ConditioningConfig::Text { .. }, None) => Err(Error::Recipe(
                "`model.conditioning` is text, and `text` does not say where features come from; \
                 configs/train/text-64.yaml has an example"
                    .into(),
            )),
            (ConditioningConfig::Class { .. }, Some(_)) => Err(Error::Recipe(
                "`text` is given, but `model.conditioning` is by class; remove `text` or set \
                 `model.conditioning` to text"
                    .into(),
            )),
            _ => Ok(()),
        }
    }

    /// Reads a recipe that contains its number of codes, with `key=value` changes.
    ///
    /// # Errors
    /// Returns an error for an unknown key or a value of the wrong type.
    pub fn complete(document: &Document, changes: &[String]) -> Result<Self> {
        with_overrides(document, changes)
    }

    /// Reads a recipe for the codes of this tokenizer, with `key=value` changes.
    ///
    /// # Errors
    /// Returns an error for an unknown key, or a model that does not fit the tokenizer's codes.
    pub fn from_document(
        mut document: Document,
        changes: &[String],
        tokenizer: &TokenizerSpec,
    ) -> Result<Self> {
        let json = document.to_json()?;
        let sizes = [("vocab_size", tokenizer.codebook_size), ("num_tokens", tokenizer.num_tokens)];
        for (key, value) in sizes {
            if json["model"].get(key).is_some_and(serde_json::Value::is_null) {
                document.set(&[format!("model.{key}={value}")])?;
            }
        }
        let recipe = Self::complete(&document, changes)?;
        let model = &recipe.model;
        let fits = [
            model.vocab_size == tokenizer.codebook_size,
            tokenizer.image_size_of(model.num_tokens).is_some(),
        ];
        for (((key, expected), found), fits) in
            sizes.into_iter().zip([model.vocab_size, model.num_tokens]).zip(fits)
        {
            if !fits {
                return Err(Error::Recipe(format!(
                    "`model.{key}` is {found}, but the tokenizer's is {expected}; write null in the recipe to take \
                     the tokenizer's"
                )));
            }
        }
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_flops_are_the_models_forward_and_backward() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/train/llamagen-b-256.yaml");
        let recipe: ArRecipe = Document::read(std::path::Path::new(path)).unwrap().typed().unwrap();
        let (run, model) = (recipe.cost().unwrap(), recipe.model.cost());
        assert_eq!(run.flops_per_image, 3.0 * model.forward_flops());
        let again = ArRecipe { recompute: true, ..recipe.clone() }.cost().unwrap();
        let head = 2.0 * (model.positions() * 16384.0 * 768.0);
        let layers = model.forward_flops() - head;
        assert!((again.flops_per_image / (4.0 * layers + 3.0 * head) - 1.0).abs() < 1e-12);
    }
}
