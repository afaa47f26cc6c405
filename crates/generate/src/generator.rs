//! Loaded models, ready for runs.

use ar_model::{Conditioning, Decoder};
use base::Progress;
use data::ClassTable;
use sampler::Pipeline;
use tch::Tensor;

use crate::condition::Condition;
use crate::config::{DrawConfig, ModelsConfig};
use crate::error::{Error, Result};
use crate::networks::Networks;
use crate::prompt_features::PromptFeatures;
use crate::provenance::RunSettings;

/// A transformer and its tokenizer, with the features of prompts where the model takes them.
pub struct Generator {
    networks: Networks,
    text: Option<PromptFeatures>,
}

impl Generator {
    /// Encodes the prompts, then loads both models, the transformer ready for fast decoding.
    ///
    /// # Errors
    /// Returns an error if the model does not take such conditions, an option does not fit the
    /// device, a file cannot be read, or the models do not go together.
    pub fn load(config: ModelsConfig, progress: &mut dyn Progress) -> Result<Self> {
        check_conditions(&config)?;
        let text = config.text.as_ref().map(|text| PromptFeatures::encode(text, &config, progress));
        let text = text.transpose()?;
        Ok(Generator { networks: Networks::load(config, progress)?, text })
    }

    /// The transformer's classes; `None` for a model of prompts.
    pub fn classes(&self) -> Option<&ClassTable> {
        self.networks.classes.as_ref()
    }

    /// Models and devices.
    pub fn config(&self) -> &ModelsConfig {
        &self.networks.identity.config
    }

    /// The pair of networks, with the negative prompt in place.
    pub(crate) fn pipeline(&self) -> Result<Pipeline<'_, Decoder, tokenizer::Model>> {
        let mut pipeline = Pipeline::new(&self.networks.transformer, &self.networks.tokenizer.model)?;
        pipeline.set_negative(self.text.as_ref().and_then(PromptFeatures::negative));
        Ok(pipeline)
    }

    /// (B) conditions as the transformer takes them.
    pub(crate) fn conditioning(&self, conditions: &[&Condition]) -> Result<Conditioning> {
        if let Some(text) = &self.text {
            let prompts: Option<Vec<_>> = conditions.iter().map(|c| c.prompt()).collect();
            return text.conditions(&prompts.ok_or(Error::NeedsPrompts)?);
        }
        let labels: Option<Vec<i64>> = conditions.iter().map(|c| Some(c.class()?.index)).collect();
        let labels = Tensor::from_slice(&labels.ok_or(Error::NeedsClasses)?);
        Ok(Conditioning::Class(labels.to_device(self.config().device)))
    }

    /// Settings that the images of a run share.
    pub(crate) fn settings(&self, draw: &DrawConfig) -> Result<RunSettings> {
        let encoder = self.text.as_ref().map(|text| text.encoder.clone());
        let negative = self.text.as_ref().and_then(|text| text.negative_prompt.clone());
        self.networks.identity.settings(draw, encoder, negative)
    }
}

/// Refuses classes of a model of prompts, and the other way round, before anything is loaded.
fn check_conditions(config: &ModelsConfig) -> Result<()> {
    match (config.pair.takes_prompts()?, config.text.is_some()) {
        (true, false) => Err(Error::NeedsPrompts),
        (false, true) => Err(Error::NeedsClasses),
        _ => Ok(()),
    }
}
