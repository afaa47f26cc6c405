//! Loaded models, ready for runs.

use ar_model::{AutoregressiveModel as _, Conditioning, Decoder};
use base::Progress;
use data::ClassTable;
use sampler::{DecodeMode, Pipeline};
use tch::Tensor;
use tokenizer::Tokenizer as _;

use crate::backend::{check_gpu, decoder, pack_tokenizer};
use crate::classes::classes_of;
use crate::condition::Condition;
use crate::config::{DrawConfig, ModelsConfig};
use crate::error::{Error, Result};
use crate::prompt_features::PromptFeatures;
use crate::provenance::{GpuSettings, ModelId, RunSettings};

/// A transformer and its tokenizer, with the features of prompts where the model takes them.
pub struct Generator {
    config: ModelsConfig,
    transformer: Decoder,
    tokenizer: tokenizer::Loaded,
    classes: Option<ClassTable>,
    text: Option<PromptFeatures>,
    transformer_id: ModelId,
    tokenizer_id: ModelId,
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
        let ModelsConfig { ref pair, device, precision, gpu, .. } = config;
        check_gpu(device, precision, gpu)?;
        let loaded = pair.transformer.open_transformer(device, precision, progress)?;
        let transformer_id = pair.transformer_id(loaded.fingerprint()?);
        let transformer = decoder(loaded.model, device, precision, gpu)?;
        let mut tokenizer = pair.tokenizer.open_tokenizer(device, config.tokenizer_precision, progress)?;
        pack_tokenizer(&mut tokenizer.model, &tokenizer.vars, gpu)?;
        let classes = classes_of(&pair.transformer, transformer.spec().num_classes)?;
        let tokenizer_id = pair.tokenizer_id(tokenizer.fingerprint()?);
        Pipeline::new(&transformer, &tokenizer.model)?; // before anything is written
        Ok(Generator { config, transformer, tokenizer, classes, text, transformer_id, tokenizer_id })
    }

    /// The transformer's classes; `None` for a model of prompts.
    pub fn classes(&self) -> Option<&ClassTable> {
        self.classes.as_ref()
    }

    /// Models and devices.
    pub fn config(&self) -> &ModelsConfig {
        &self.config
    }

    /// The pair of networks, with the negative prompt in place.
    pub(crate) fn pipeline(&self) -> Result<Pipeline<'_, Decoder, tokenizer::Model>> {
        let mut pipeline = Pipeline::new(&self.transformer, &self.tokenizer.model)?;
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
        Ok(Conditioning::Class(labels.to_device(self.config.device)))
    }

    /// Settings that the images of a run share.
    pub(crate) fn settings(&self, draw: &DrawConfig) -> Result<RunSettings> {
        let ModelsConfig { device, precision, tokenizer_precision, gpu, .. } = self.config;
        Ok(RunSettings {
            program: concat!("gen ", env!("CARGO_PKG_VERSION")).into(),
            model: self.transformer_id.clone(),
            tokenizer: self.tokenizer_id.clone(),
            text_encoder: self.text.as_ref().map(|text| text.encoder.clone()),
            negative_prompt: self.text.as_ref().and_then(|text| text.negative_prompt.clone()),
            sampling: draw.sampling.settings(),
            rng: draw.rng,
            seed: draw.seed,
            size: draw.size.unwrap_or_else(|| self.side()),
            precision,
            tokenizer_precision,
            device: if device.is_cuda() { "cuda".into() } else { "cpu".into() },
            gpu: GpuSettings {
                kernels: gpu.gpu_kernels,
                int8_cache: gpu.int8_cache,
                cuda_graph: draw.mode == DecodeMode::CudaGraph,
                tf32: device.is_cuda() && libtorch_ext::tf32::get()?.contains(&true),
            },
        })
    }

    /// Side of the tokenizer's images in pixels.
    fn side(&self) -> i64 {
        let codes = self.transformer.spec().num_tokens;
        self.tokenizer.model.spec().image_size_of(codes).expect("`load` checks the pair")
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
