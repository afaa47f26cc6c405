//! A loaded transformer and its tokenizer, and what images of theirs say of them.

use ar_model::{AutoregressiveModel as _, Decoder};
use base::Progress;
use data::ClassTable;
use sampler::{DecodeMode, Pipeline};
use tokenizer::Tokenizer as _;

use crate::backend::{check_gpu, decoder, pack_tokenizer};
use crate::classes::classes_of;
use crate::config::{DrawConfig, ModelsConfig};
use crate::error::Result;
use crate::provenance::{GpuSettings, ModelId, RunSettings};

/// A transformer, ready for fast decoding, and its tokenizer.
pub struct Networks {
    /// The transformer.
    pub transformer: Decoder,
    /// The tokenizer.
    pub tokenizer: tokenizer::Loaded,
    /// The transformer's classes; `None` for a model of prompts.
    pub classes: Option<ClassTable>,
    /// What images say of them.
    pub identity: Identity,
}

/// Networks as images remember them.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Models and devices.
    pub config: ModelsConfig,
    /// The transformer.
    pub transformer: ModelId,
    /// The tokenizer.
    pub tokenizer: ModelId,
    /// Side of the tokenizer's images in pixels.
    pub side: i64,
}

impl Networks {
    /// Loads both models.
    ///
    /// # Errors
    /// Returns an error if an option does not fit the device, a file cannot be read, or the models do
    /// not go together.
    pub fn load(config: ModelsConfig, progress: &mut dyn Progress) -> Result<Self> {
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
        let codes = transformer.spec().num_tokens;
        let side = tokenizer.model.spec().image_size_of(codes).expect("the pipeline checks the pair");
        let identity = Identity { config, transformer: transformer_id, tokenizer: tokenizer_id, side };
        Ok(Networks { transformer, tokenizer, classes, identity })
    }
}

impl Identity {
    /// Settings that the images of a run share; for a model of prompts with its text encoder and the
    /// negative prompt.
    ///
    /// # Errors
    /// Returns an error if libtorch's settings cannot be read.
    pub fn settings(
        &self,
        draw: &DrawConfig,
        text_encoder: Option<ModelId>,
        negative_prompt: Option<String>,
    ) -> Result<RunSettings> {
        let ModelsConfig { device, precision, tokenizer_precision, gpu, .. } = self.config;
        Ok(RunSettings {
            program: concat!("gen ", env!("CARGO_PKG_VERSION")).into(),
            model: self.transformer.clone(),
            tokenizer: self.tokenizer.clone(),
            text_encoder,
            negative_prompt,
            sampling: draw.sampling.settings(),
            rng: draw.rng,
            seed: draw.seed,
            size: draw.size.unwrap_or(self.side),
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
}
