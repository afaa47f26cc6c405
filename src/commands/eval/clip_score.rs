//! CLIP as CLIP score reads it: images and their prompts.

use anyhow::Result;
use backbones::files::{PublicFile, models_folder, sha256};
use backbones::{ClipExtractor, ClipTokenizer, FeatureExtractor as _, FeatureId, InputPath, Network};
use base::ImagesU8;
use cli::eval::NetworkArgs;
use eval::CLIP_PREFIX;
use tch::{Device, Tensor};

use super::networks::source;
use crate::failure::Failure;

/// Both towers and the vocabulary.
pub struct ClipScorer {
    extractor: ClipExtractor,
    tokenizer: ClipTokenizer,
    /// Whose embeddings.
    pub id: FeatureId,
}

/// Embeddings of length 1, (B, P) each, on the CPU.
pub struct Embedded {
    /// Of images.
    pub images: Tensor,
    /// Of their prompts behind [`CLIP_PREFIX`].
    pub prefixed: Tensor,
    /// Of the bare prompts.
    pub bare: Tensor,
}

impl ClipScorer {
    /// Opens the network and the vocabulary.
    pub fn open(args: &NetworkArgs, device: Device) -> Result<Self> {
        let network: Network = args.clip_score_network.parse()?;
        let Network::Clip(model) = network else {
            let message = format!("`--clip-score-network {}` is no CLIP", args.clip_score_network);
            return Err(Failure::new(message).hint("choose clip-b32, clip-l14 or clip-l14-336").into());
        };
        let models = models_folder(args.models.models_dir.as_deref());
        let weights = network.weights(source(&args.clip_score_weights)?.as_ref(), &models)?;
        let public = PublicFile::named("clip-text")?;
        let vocabulary = match &args.clip_text {
            Some(path) => path.clone(),
            None => public.locate(&models)?,
        };
        let tokenizer = ClipTokenizer::open(&vocabulary)?;
        let extractor = ClipExtractor::open(model, &weights, InputPath::Clip, device)?;
        let mut id = FeatureId { layer: "image and text embeddings".into(), ..extractor.id().clone() };
        // A folder has no digest of its own.
        let digest = if vocabulary.is_file() { sha256(&vocabulary)? } else { "unknown".into() };
        id.comparable &= public.recognises(&digest);
        id.weights_sha256 = format!("{}+{digest}", id.weights_sha256);
        Ok(ClipScorer { extractor, tokenizer, id })
    }

    /// Embeddings of images and their prompts.
    pub fn embed(&self, images: &ImagesU8, prompts: &[String]) -> Result<Embedded> {
        let text = |texts: &[String]| -> Result<Tensor> {
            let tokens = self.tokenizer.encode(texts)?;
            Ok(self.extractor.clip().text_features(&tokens)?.to_device(Device::Cpu))
        };
        let prefixed: Vec<String> = prompts.iter().map(|p| format!("{CLIP_PREFIX}{p}")).collect();
        Ok(Embedded {
            images: self.extractor.extract(images)?.pool,
            prefixed: text(&prefixed)?,
            bare: text(prompts)?,
        })
    }
}
