//! Decoding on a GPU with the kernels of [`cuda_kernels`].
//!
//! B sequences, S positions, D width, V vocabulary

use cuda_kernels::{Format, Inputs, KvCache, Shape};
use libtorch_ext::cuda_kernel::KernelLauncher;
use tch::{Kind, Tensor};

use super::{AutoregressiveModel, CapturableStep};
use crate::attention::Attention;
use crate::conditioning::Conditioning;
use crate::config::{ArConfig, Architecture, ConditioningConfig, ModulationConfig, PositionConfig};
use crate::embeddings::Embeddings;
use crate::error::Result;
use crate::model::{Block, FeedForward, Gpt};
use crate::spec::ArSpec;

/// Storage formats of a GPU's decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuFormats {
    /// Of the weights.
    pub weights: Format,
    /// Of the cache.
    pub cache: Format,
}

fn shape(config: &ArConfig) -> Shape {
    Shape {
        width: config.width,
        heads: config.heads,
        kv_heads: config.num_kv_heads(),
        hidden: config.feed_forward_width(),
        vocabulary: config.vocab_size,
        length: config.conditioning.prefix_len() + config.num_tokens,
        eps: config.norm_eps,
    }
}

/// The kernels lack what no release has: norms of queries and keys, adaptive norms, odd sizes. An option of
/// the configuration that is not decided on here does not compile, nor does a new variant of one.
pub(super) fn unsupported_reason(config: &ArConfig) -> Option<String> {
    let ArConfig {
        kind: Architecture::Gpt,
        width: _, // sizes are the shape's
        layers: _,
        heads: _,
        kv_heads: _,
        feed_forward_width: _,
        vocab_size: _,
        num_tokens: _,
        position: PositionConfig::Learned | PositionConfig::Rope2d,
        conditioning: ConditioningConfig::Class { .. } | ConditioningConfig::Text { .. },
        rope_base: _,
        norm_eps: _,
        initializer_range: _,
        qk_norm,
        modulation,
        dropout: _, // acts in training alone
    } = config;
    if *qk_norm {
        return Some("norms of queries and keys".into());
    }
    match modulation {
        ModulationConfig::None => shape(config).unsupported_reason(),
        ModulationConfig::AdaLn | ModulationConfig::SimpleAdaLn => Some("adaptive norms".into()),
    }
}

/// A transformer in the format of the GPU's kernels.
#[derive(Debug)]
pub struct GpuDecoder {
    kernels: cuda_kernels::Decoder,
    embeddings: Embeddings,
    config: ArConfig,
    spec: ArSpec,
}

impl GpuDecoder {
    /// Packs the weights, empties their variables, and runs the kernels once, so that what is wrong with them
    /// shows here.
    pub(super) fn new(gpt: Gpt, formats: GpuFormats, launcher: &'static dyn KernelLauncher) -> Result<Self> {
        let Gpt { mut embeddings, rope, layers, norm, modulation: _, output, config, spec } = gpt;
        let shape = shape(&config);
        let (norm, output) = (norm.weight(), output.weight());
        let formats = [formats.weights, formats.cache];
        let inputs = inputs(&embeddings);
        let mut kernels =
            cuda_kernels::Decoder::new(shape, formats, norm, output, rope.as_ref(), inputs, launcher);
        release([output]);
        layers.into_iter().for_each(|block| push(&mut kernels, block));
        let nothing = Tensor::zeros([1, 1, shape.width], (Kind::Float, embeddings.device()));
        let cache = kernels.new_cache(1);
        let _ = kernels.forward(&cache, nothing, &cache.position(0), 1)?;
        embeddings.compute = Kind::Float;
        Ok(GpuDecoder { kernels, embeddings, config, spec })
    }

    /// The configuration of the network.
    pub fn config(&self) -> &ArConfig {
        &self.config
    }

    /// Bytes of the weights that a step reads.
    pub fn weight_bytes(&self) -> usize {
        self.kernels.bytes()
    }

    /// Codes (B, K) from `position` (1) on → logits of the code after each, (B, K, V).
    fn codes(&self, codes: &Tensor, position: &Tensor, cache: &KvCache) -> Tensor {
        let x = self.kernels.embed(codes, position).unwrap_or_else(|e| panic!("{e}"));
        self.run(cache, x, position, codes.size()[1])
    }

    /// Inputs (B, S, D) from `position` (1) on → logits of the last `wanted`, (B, wanted, V).
    fn run(&self, cache: &KvCache, x: Tensor, position: &Tensor, wanted: i64) -> Tensor {
        let logits = self.kernels.forward(cache, x, position, wanted);
        // As tch's own operations do; the kernels ran when the decoder was made.
        logits.unwrap_or_else(|e| panic!("{e}"))
    }
}

impl AutoregressiveModel for GpuDecoder {
    type Cache = KvCache;

    fn spec(&self) -> &ArSpec {
        &self.spec
    }

    fn check_conditioning(&self, cond: &Conditioning) -> Result<()> {
        self.embeddings.check(cond)
    }

    fn null_conditioning(&self, like: &Conditioning) -> Conditioning {
        self.embeddings.embedder.null(like)
    }

    fn new_cache(&self, batch: i64) -> KvCache {
        self.kernels.new_cache(batch)
    }

    fn prefill(&self, cond: &Conditioning, cache: &mut KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        cache.set_prefix_mask(cond.prefix_mask());
        self.run(cache, self.embeddings.prefix(cond, None), &cache.position(0), 1).squeeze_dim(1)
    }

    fn decode_chunk(&self, codes: &Tensor, position: i64, cache: &mut KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        self.codes(codes, &cache.position(position), cache)
    }

    fn batch_multiple(&self) -> i64 {
        1
    }

    fn logits(&self, cond: &Conditioning, codes: &Tensor) -> Tensor {
        let _guard = tch::no_grad_guard();
        let x = self.embeddings.sequence(cond, codes, None); // (B, T + N − 1, D)
        let (b, s, _) = x.size3().expect("inputs are (B, S, D)");
        let mut cache = self.kernels.new_cache(b);
        cache.set_prefix_mask(cond.prefix_mask());
        self.run(&cache, x, &cache.position(0), s - self.spec.prefix_len + 1)
    }

    fn capturable(&self) -> Option<&dyn CapturableStep<KvCache>> {
        Some(self)
    }
}

impl CapturableStep<KvCache> for GpuDecoder {
    fn decode_step_at(&self, codes: &Tensor, position: &Tensor, _: i64, cache: &mut KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        self.codes(codes, position, cache).squeeze_dim(1)
    }

    fn launcher(&self) -> Option<&'static dyn KernelLauncher> {
        Some(self.kernels.launcher())
    }
}

/// The tables that the kernels embed codes with.
fn inputs(embeddings: &Embeddings) -> Inputs {
    let table = |t: &Tensor| match t.kind() {
        Kind::BFloat16 => t.shallow_clone(),
        _ => t.to_kind(Kind::Float),
    };
    Inputs {
        embedding: table(&embeddings.code_table),
        positions: embeddings.position_table.as_ref().map(table),
        before: embeddings.prefix_len - 1,
    }
}

/// Appends a layer.
fn push(decoder: &mut cuda_kernels::Decoder, block: Block) {
    let Block { attention, feed_forward, attention_norm, ffn_norm, modulation: _, drop_path: _ } = block;
    let Attention { wqkv, wo, qk_norm: _, heads: _, kv_heads: _ } = attention;
    let FeedForward { w1, w2, w3 } = feed_forward;
    let [wqkv, wo, w1, w2, w3] = [&wqkv, &wo, &w1, &w2, &w3].map(|linear| linear.weight());
    let [attention_norm, ffn_norm] = [&attention_norm, &ffn_norm].map(|norm| norm.weight());
    decoder.push(cuda_kernels::Block { wqkv, wo, w1, w2, w3, attention_norm, ffn_norm });
    release([wqkv, wo, w1, w2, w3]);
}

/// Gives weights' memory back.
fn release<const N: usize>(weights: [&Tensor; N]) {
    for weight in weights {
        weight.shallow_clone().set_data(&Tensor::empty([0], (weight.kind(), weight.device())));
    }
}
