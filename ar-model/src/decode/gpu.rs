//! Decoding on a GPU with the kernels of [`cuda_kernels`].
//!
//! B sequences, S positions, K codes, D width, V vocabulary

use cuda_kernels::{Format, Inputs, KvCache, Places, Shape};
use libtorch_ext::cuda_kernel::KernelLauncher;
use nn::LayerNorm;
use tch::{Kind, Tensor};

use super::kernel_decoder::{DecodeKernels, KernelDecoder, LayerWeights, release};
use super::{CacheRow, CapturableStep};
use crate::conditioning::Conditioning;
use crate::config::ArConfig;
use crate::embeddings::Embeddings;
use crate::error::Result;
use crate::model::{Block, Gpt};

/// Storage formats of a GPU's decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuFormats {
    /// Format of the weights.
    pub weights: Format,
    /// Format of the KV cache.
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

/// The option or size that the kernels do not support, which no release has.
pub(super) fn unsupported_reason(config: &ArConfig) -> Option<String> {
    let option = config.options().unsupported_by_gpu().map(str::to_owned);
    option.or_else(|| shape(config).unsupported_reason())
}

/// A transformer packed for a GPU's kernels.
pub type GpuDecoder = KernelDecoder<GpuKernels>;

/// A GPU's kernels.
#[derive(Debug)]
pub struct GpuKernels {
    decoder: cuda_kernels::Decoder,
}

/// Packs the weights, empties their variables, and runs the kernels once, so that their errors
/// appear here.
pub(super) fn pack(
    gpt: Gpt,
    formats: GpuFormats,
    launcher: &'static dyn KernelLauncher,
) -> Result<GpuDecoder> {
    let Gpt { embeddings, rope, layers, norm, modulation: _, output, config, spec } = gpt;
    let shape = shape(&config);
    let (norm, output) = (norm.weight(), output.weight());
    let formats = [formats.weights, formats.cache];
    let inputs = inputs(&embeddings);
    let mut decoder =
        cuda_kernels::Decoder::new(shape, formats, norm, output, rope.as_ref(), inputs, launcher);
    release(output);
    layers.into_iter().for_each(|block| push(&mut decoder, block));
    let zeros = Tensor::zeros([1, 1, shape.width], (Kind::Float, embeddings.device()));
    let cache = decoder.new_cache(1);
    let places = Places { position: &cache.position(0), rows: None };
    let _ = decoder.forward(&cache, zeros, places, 1)?;
    Ok(KernelDecoder::new(GpuKernels { decoder }, embeddings, config, spec))
}

impl GpuKernels {
    /// Codes (B, K) from `position`, (1) or (B), on → inputs (B, K, D).
    fn embed_at(&self, codes: &Tensor, position: &Tensor) -> Tensor {
        self.decoder.embed(codes, position).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Inputs (B, S, D) in their places → logits of the last `wanted`, (B, wanted, V).
    /// Panics like tch's own operations; the kernels ran when the decoder was made.
    fn forward_at(&self, x: Tensor, places: Places, wanted: i64, cache: &KvCache) -> Tensor {
        self.decoder.forward(cache, x, places, wanted).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Numbers on the kernels' device, int64.
    fn numbers(&self, numbers: impl Iterator<Item = i64>) -> Tensor {
        let numbers: Vec<i64> = numbers.collect();
        Tensor::from_slice(&numbers).to_device(self.decoder.launcher().device())
    }
}

impl DecodeKernels for GpuKernels {
    type Cache = KvCache;
    const OWN_THREADS: bool = false;

    /// Caches have the length that the kernels are compiled for.
    fn new_cache(&self, batch: i64, _length: i64) -> KvCache {
        self.decoder.new_cache(batch)
    }

    fn weight_bytes(&self) -> usize {
        self.decoder.bytes()
    }

    fn set_condition(&self, cond: &Conditioning, _prefix: &Tensor, cache: &mut KvCache) {
        cache.set_prefix_mask(cond.prefix_mask());
    }

    fn set_conditions(&self, cond: &Conditioning, _prefix: &Tensor, rows: &[i64], cache: &mut KvCache) {
        if let Some(mask) = cond.prefix_mask() {
            cache.set_prefix_mask_of(&self.numbers(rows.iter().copied()), mask);
        }
    }

    fn forward(&self, x: Tensor, position: i64, wanted: i64, cache: &mut KvCache) -> Tensor {
        let position = cache.position(position);
        self.forward_at(x, Places { position: &position, rows: None }, wanted, cache)
    }

    fn forward_rows(&self, x: Tensor, rows: &[CacheRow], wanted: i64, cache: &mut KvCache) -> Tensor {
        let position = self.numbers(rows.iter().map(|at| at.position));
        let rows = self.numbers(rows.iter().map(|at| at.row));
        self.forward_at(x, Places { position: &position, rows: Some(&rows) }, wanted, cache)
    }

    fn embed(&self, codes: &Tensor, position: i64, cache: &KvCache) -> Option<Tensor> {
        Some(self.embed_at(codes, &cache.position(position)))
    }

    fn embed_rows(&self, codes: &Tensor, rows: &[CacheRow]) -> Option<Tensor> {
        Some(self.embed_at(codes, &self.numbers(rows.iter().map(|at| at.position))))
    }

    fn capturable(decoder: &GpuDecoder) -> Option<&dyn CapturableStep<KvCache>> {
        Some(decoder)
    }
}

impl CapturableStep<KvCache> for GpuDecoder {
    fn decode_step_at(&self, codes: &Tensor, position: &Tensor, _: i64, cache: &mut KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let x = self.kernels.embed_at(codes, position);
        self.kernels.forward_at(x, Places { position, rows: None }, 1, cache).squeeze_dim(1)
    }

    fn launcher(&self) -> Option<&'static dyn KernelLauncher> {
        Some(self.kernels.decoder.launcher())
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

/// Appends a layer to the kernels' decoder.
fn push(decoder: &mut cuda_kernels::Decoder, block: Block) {
    let layer = LayerWeights::from(block);
    let linears = [&layer.wqkv, &layer.wo, &layer.w1, &layer.w2, &layer.w3];
    let weights = linears.map(|linear| linear.weight());
    let [wqkv, wo, w1, w2, w3] = weights;
    let (attention_norm, ffn_norm) = (&layer.attention_norm, &layer.ffn_norm);
    let parts = |(q, k): &'_ (LayerNorm, LayerNorm)| {
        [q.weight(), q.bias(), k.weight(), k.bias()].map(Tensor::shallow_clone)
    };
    let qk_norm = layer.qk_norm.as_ref().map(parts);
    let qk_norm = qk_norm.as_ref().map(|parts| parts.each_ref());
    decoder.push(cuda_kernels::Block { wqkv, wo, w1, w2, w3, attention_norm, ffn_norm, qk_norm });
    weights.into_iter().for_each(release);
}
