//! A transformer with its tokenizer, located.

use ar_model::{ArConfig, ConditioningConfig};
use settings::{ModelChoice, SamplingSettings};

use crate::error::Result;
use crate::locate::{self, DEFAULT_MODEL, Location};
use crate::provenance::ModelId;

/// A transformer and its tokenizer, located but not loaded.
#[derive(Debug, Clone)]
pub struct ModelPair {
    /// The transformer.
    pub transformer: Location,
    /// The tokenizer.
    pub tokenizer: Location,
    transformer_choice: ModelChoice,
    tokenizer_choice: ModelChoice,
}

impl ModelPair {
    /// Locates both models, without loading weights.
    ///
    /// # Errors
    /// Returns an error if one of them is not there.
    pub fn find(model: &ModelChoice, tokenizer: &ModelChoice) -> Result<Self> {
        let transformer = locate::transformer(model)?;
        let paired = locate::tokenizer_of(&transformer, tokenizer)?;
        let name = model.name.clone().unwrap_or_else(|| DEFAULT_MODEL.into());
        let tokenizer_name = tokenizer.name.clone().unwrap_or_else(|| name.clone());
        Ok(ModelPair {
            transformer,
            tokenizer: paired,
            transformer_choice: ModelChoice { name: Some(name), ..model.clone() },
            tokenizer_choice: ModelChoice { name: Some(tokenizer_name), ..tokenizer.clone() },
        })
    }

    /// The transformer's name, as it was given, or that of the bundled model.
    pub fn name(&self) -> String {
        self.transformer_choice.name.clone().unwrap_or_default()
    }

    /// The transformer's configuration.
    ///
    /// # Errors
    /// Returns an error if it cannot be read.
    pub fn ar_config(&self) -> Result<ArConfig> {
        Ok(ArConfig::read(&self.transformer.config_file())?)
    }

    /// Whether the transformer is conditioned on text.
    ///
    /// # Errors
    /// Returns an error if its configuration cannot be read.
    pub fn takes_prompts(&self) -> Result<bool> {
        Ok(matches!(self.ar_config()?.conditioning, ConditioningConfig::Text { .. }))
    }

    /// The model's own sampling settings: those of its `sampling.yaml`, else the published ones of
    /// its kind.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub fn sampling_defaults(&self) -> Result<SamplingSettings> {
        match self.transformer.beside("sampling.yaml")? {
            Some(path) => Ok(base::config::read(&path)?),
            None if self.takes_prompts()? => Ok(SamplingSettings::published_for_prompts()),
            None => Ok(SamplingSettings::default()),
        }
    }

    /// Identity of the transformer, whose weights have this fingerprint.
    pub(crate) fn transformer_id(&self, fingerprint: String) -> ModelId {
        ModelId::of(&self.transformer_choice, fingerprint)
    }

    /// Identity of the tokenizer, whose weights have this fingerprint.
    pub(crate) fn tokenizer_id(&self, fingerprint: String) -> ModelId {
        ModelId::of(&self.tokenizer_choice, fingerprint)
    }
}
