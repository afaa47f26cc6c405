//! Decoding on the CPU with the kernels of [`cpu_kernels`]: weights packed once, keys and values in
//! place.
//!
//! B sequences, S positions, T prefix positions, D width, V vocabulary

use base::Precision;
use cpu_kernels::{Format, Token};
use libtorch_ext::bytes::{f32_values, tensor_of};
use nn::LayerNorm;
use tch::{Kind, Tensor};

use super::CacheRow;
use super::kernel_decoder::{DecodeKernels, KernelDecoder, LayerWeights, release};
use crate::conditioning::Conditioning;
use crate::config::ArConfig;
use crate::model::{Block, Gpt};
use crate::modulation::{LayerModulation, ModelModulation};

/// The kernels' format for weights of `precision`; `None` if there is no kernel for it.
pub(super) fn format(precision: Precision) -> Option<Format> {
    match precision {
        Precision::Fp32 => Some(Format::F32),
        Precision::Bf16 => Some(Format::Bf16),
        Precision::Int8 => Some(Format::Int8),
        Precision::Fp16 => None,
    }
}

/// The option that the kernels do not support, if there is one.
pub(super) fn unsupported_reason(config: &ArConfig) -> Option<String> {
    config.options().unsupported_by_cpu().map(str::to_owned)
}

/// A transformer packed for the CPU's kernels, many times faster than libtorch for few rows.
/// Activations between products are fp32 in every format.
pub type CpuDecoder = KernelDecoder<CpuKernels>;

/// The CPU's kernels, and the adaptive norms.
#[derive(Debug)]
pub struct CpuKernels {
    decoder: cpu_kernels::Decoder,
    layers: Vec<LayerModulation>,
    modulation: ModelModulation,
}

/// Packs the weights and empties their variables. From then on the process keeps freed memory:
/// logits of a row are so large that the C library would return them to the system after every
/// step.
pub(super) fn pack(gpt: Gpt, format: Format) -> CpuDecoder {
    let Gpt { embeddings, rope, layers, norm, modulation, output, config, spec } = gpt;
    libtorch_ext::runtime::keep_freed_memory();
    let shape = cpu_kernels::Shape {
        width: config.width as usize,
        heads: config.heads as usize,
        kv_heads: config.num_kv_heads() as usize,
        hidden: config.feed_forward_width() as usize,
        vocabulary: config.vocab_size as usize,
        eps: config.norm_eps as f32,
    };
    let (norm, output) = (f32_values(norm.weight()), take(output.weight()));
    // Attention is divided among threads by heads; more threads would only wait.
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).min(shape.heads);
    let rope = rope.as_ref().map(f32_values);
    let mut decoder = cpu_kernels::Decoder::new(shape, format, &norm, &output, rope, threads);
    let layers = layers.into_iter().map(|block| push(&mut decoder, block)).collect();
    KernelDecoder::new(CpuKernels { decoder, layers, modulation }, embeddings, config, spec)
}

impl CpuKernels {
    /// Adaptive norms under a condition (B, 1, D): of each layer (B', 6, D), of the final norm
    /// (B', 2, D). B' is the next multiple of 8, since libtorch's products of other numbers of rows
    /// round differently.
    fn modulations(&self, condition: &Tensor) -> Option<(Vec<Tensor>, Tensor)> {
        if !self.modulation.needs_condition() {
            return None;
        }
        let missing = (-condition.size()[0]).rem_euclid(8);
        let copies = condition.narrow(0, 0, 1).expand([missing, -1, -1], false);
        let condition = Tensor::cat(&[condition, &copies], 0);
        let last = Tensor::cat(&self.modulation.last_parts(Some(&condition))?, 1);
        let shared = self.modulation.condition(Some(&condition));
        let layer = |layer: &LayerModulation| layer.parts(&shared).map(|parts| Tensor::cat(&parts, 1));
        Some((self.layers.iter().filter_map(layer).collect(), last))
    }
}

impl DecodeKernels for CpuKernels {
    type Cache = cpu_kernels::KvCache;
    const OWN_THREADS: bool = true;

    fn new_cache(&self, batch: i64, length: i64) -> cpu_kernels::KvCache {
        self.decoder.new_cache(batch as usize, length as usize)
    }

    fn weight_bytes(&self) -> usize {
        self.decoder.bytes()
    }

    fn set_condition(&self, cond: &Conditioning, prefix: &Tensor, cache: &mut cpu_kernels::KvCache) {
        let all: Vec<i64> = (0..cond.batch_size()).collect();
        self.set_conditions(cond, prefix, &all, cache);
    }

    fn set_conditions(
        &self,
        cond: &Conditioning,
        prefix: &Tensor,
        rows: &[i64],
        cache: &mut cpu_kernels::KvCache,
    ) {
        if let Some(mask) = cond.prefix_mask() {
            let (_, t) = mask.size2().expect("masks are (B, T)");
            let flat = Vec::<bool>::try_from(mask.to_kind(Kind::Bool).contiguous().view(-1))
                .expect("bool tensors are copied to bool vectors");
            for (&row, mask) in rows.iter().zip(flat.chunks(t as usize)) {
                cache.set_prefix_mask(row as usize, mask);
            }
        }
        if let Some((layers, last)) = self.modulations(prefix) {
            let (layers, last): (Vec<_>, _) = (layers.iter().map(f32_values).collect(), f32_values(&last));
            let part = |all: &[f32], i: usize| {
                let each = all.len() / rows.len().next_multiple_of(8);
                i * each..(i + 1) * each
            };
            for (i, &row) in rows.iter().enumerate() {
                let layers: Vec<&[f32]> = layers.iter().map(|all| &all[part(all, i)]).collect();
                cache.modulate(row as usize, &layers, &last[part(&last, i)]);
            }
        }
    }

    fn forward(&self, x: Tensor, position: i64, wanted: i64, cache: &mut cpu_kernels::KvCache) -> Tensor {
        let all: Vec<CacheRow> = (0..x.size()[0]).map(|row| CacheRow { row, position }).collect();
        self.forward_rows(x, &all, wanted, cache)
    }

    fn forward_rows(
        &self,
        x: Tensor,
        rows: &[CacheRow],
        wanted: i64,
        cache: &mut cpu_kernels::KvCache,
    ) -> Tensor {
        let (b, s, _) = x.size3().expect("inputs are (R, S, D)");
        let token =
            |at: CacheRow, i| Token { sequence: at.row as usize, position: (at.position + i) as usize };
        let tokens: Vec<Token> = rows.iter().flat_map(|&at| (0..s).map(move |i| token(at, i))).collect();
        let last = (0..b).flat_map(|row| (s - wanted..s).map(move |i| (row * s + i) as usize));
        let (last, vocabulary) = (last.collect::<Vec<_>>(), self.decoder.shape().vocabulary as i64);
        tensor_of(&[b, wanted, vocabulary], |logits| {
            self.decoder.forward(cache, &tokens, &f32_values(&x), &last, logits);
        })
        .expect("libtorch has memory for logits")
    }
}

/// Appends a layer to the kernels' decoder, and returns its modulation.
fn push(decoder: &mut cpu_kernels::Decoder, block: Block) -> LayerModulation {
    let layer = LayerWeights::from(block);
    let weights = [&layer.wqkv, &layer.wo, &layer.w1, &layer.w2, &layer.w3];
    let [wqkv, wo, w1, w2, w3] = weights.map(|linear| take(linear.weight()));
    let [attention_norm, ffn_norm] = [&layer.attention_norm, &layer.ffn_norm].map(f32_values);
    let parts =
        |(q, k): &(LayerNorm, LayerNorm)| [q.weight(), q.bias(), k.weight(), k.bias()].map(f32_values);
    let qk_norm = layer.qk_norm.as_ref().map(parts);
    decoder.push(cpu_kernels::Block {
        wqkv: &wqkv,
        wo: &wo,
        w1: &w1,
        w2: &w2,
        w3: &w3,
        attention_norm: &attention_norm,
        ffn_norm: &ffn_norm,
        qk_norm: qk_norm.as_ref().map(|parts| parts.each_ref().map(Vec::as_slice)),
    });
    layer.modulation
}

/// Values of a weight, which is emptied.
fn take(weight: &Tensor) -> Vec<f32> {
    let values = f32_values(weight);
    release(weight);
    values
}
