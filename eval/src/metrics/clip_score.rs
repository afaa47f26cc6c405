//! CLIP score.

use backbones::files::{PublicFile, sha256};
use backbones::{ClipExtractor, ClipTokenizer, FeatureExtractor as _, FeatureId, InputPath, Network};
use base::{ImagesU8, finite};
use serde::Deserialize as _;
use serde_json::Value as Json;
use tch::{Device, Tensor};

use crate::batch::{BatchFeatures, EvalBatch, Item, MetricValues};
use crate::math::clip_score::{CLIP_PREFIX, ClipScore};
use crate::metric::{MetricSetup, MetricSpec, MetricState, Minimum, Needs, ScoreInputs};
use crate::score::{Better, Score};
use crate::{Error, Result};

/// Cosine of the embeddings of images and prompts.
pub const SPEC: MetricSpec = MetricSpec {
    needs: Needs { prompts: true, ..Needs::NOTHING },
    minimum: Minimum::any,
    start: |setup| Ok(Box::new(ClipMetric::open(setup)?)),
};

/// Embeddings among the values of a batch, (B, P) each.
const EMBEDDINGS: [&str; 3] = ["images", "prefixed", "bare"];

/// Both towers, the vocabulary, and the sums.
struct ClipMetric {
    extractor: ClipExtractor,
    tokenizer: ClipTokenizer,
    id: FeatureId,
    sums: ClipScore,
}

impl ClipMetric {
    fn open(setup: &MetricSetup) -> Result<Self> {
        let options = setup.networks;
        let model = options.clip_score;
        let weights = options.weights(Network::Clip(model), &options.clip_score_weights)?;
        let public = PublicFile::named("clip-text")?;
        let vocabulary = match &options.clip_text {
            Some(path) => path.clone(),
            None => public.locate(&options.models)?,
        };
        let tokenizer = ClipTokenizer::open(&vocabulary)?;
        let extractor = ClipExtractor::open(model, &weights, InputPath::Clip, setup.device)?;
        let mut id = FeatureId { layer: "image and text embeddings".into(), ..extractor.id().clone() };
        // A folder has no digest of its own.
        let digest = if vocabulary.is_file() { sha256(&vocabulary)? } else { "unknown".into() };
        id.comparable &= public.recognises(&digest);
        id.weights_sha256 = format!("{}+{digest}", id.weights_sha256);
        Ok(ClipMetric { extractor, tokenizer, id, sums: ClipScore::default() })
    }

    /// Embeddings of length 1, (B, P) each, on the CPU: images, prompts behind [`CLIP_PREFIX`],
    /// bare prompts.
    fn embed(&self, images: &ImagesU8, prompts: &[String]) -> Result<[Tensor; 3]> {
        let text = |texts: &[String]| -> Result<Tensor> {
            let tokens = self.tokenizer.encode(texts)?;
            Ok(self.extractor.clip().text_features(&tokens)?.to_device(Device::Cpu))
        };
        let prefixed: Vec<String> = prompts.iter().map(|p| format!("{CLIP_PREFIX}{p}")).collect();
        Ok([self.extractor.extract(images)?.pool, text(&prefixed)?, text(prompts)?])
    }
}

impl MetricState for ClipMetric {
    fn network(&self) -> Option<&FeatureId> {
        Some(&self.id)
    }

    fn measure(&self, batch: &EvalBatch, _: &BatchFeatures) -> Result<MetricValues> {
        let Some(images) = &batch.samples else { return Ok(MetricValues::new()) };
        let prompts: Option<Vec<String>> = batch.items.iter().map(|item| item.prompt.clone()).collect();
        let prompts = prompts.ok_or(Error::Internal("an image without its prompt"))?;
        let embedded = self.embed(images, &prompts)?;
        let of_prompt = "the embedding of its prompt";
        for (what, values) in ["the embedding", of_prompt, of_prompt].into_iter().zip(&embedded) {
            finite::check(values, batch.names(), what, &self.id.to_string())?;
        }
        Ok(EMBEDDINGS.map(str::to_owned).into_iter().zip(embedded).collect())
    }

    fn add(&mut self, values: &MetricValues, _: &[Item]) -> Result<()> {
        if let [Some(images), Some(prefixed), Some(bare)] = EMBEDDINGS.map(|name| values.get(name)) {
            self.sums.update(images, prefixed, bare)?;
        }
        Ok(())
    }

    fn save(&self) -> Result<Json> {
        Ok(serde_json::to_value(self.sums)?)
    }

    fn merge(&mut self, saved: &Json) -> Result<()> {
        self.sums.merge(&ClipScore::deserialize(saved)?);
        Ok(())
    }

    fn scores(&self, inputs: &ScoreInputs) -> Result<Vec<Score>> {
        let found = self.sums.scores().ok_or(Error::Nothing("no image was compared with its prompt"))?;
        let score = |name: &str, value: f64, variant: &str| {
            let score = inputs.context.score(name, value, Better::Higher, variant);
            score.of(Some(&self.id)).without_reference()
        };
        Ok(vec![
            score(
                "clip_score",
                found.hessel,
                "Hessel et al.: 2.5 max(cos, 0), text behind \"A photo depicts\"",
            ),
            score("clip_cosine", found.cosine, "GigaGAN, LlamaGen: cos, text behind \"A photo depicts\""),
            score(
                "clip_score_100",
                found.torchmetrics,
                "torchmetrics: 100 cos of the bare text, mean clipped at 0",
            ),
        ])
    }
}
