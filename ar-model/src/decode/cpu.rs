//! Decoding on the CPU with the kernels of [`kernels`]: weights packed once, keys and values in place.
//!
//! B sequences, T prefix positions, N codes, D width, V vocabulary

use base::Precision;
use kernels::{Format, Token};
use libtorch_ext::bytes::tensor_of;
use tch::{Kind, Tensor};

use super::AutoregressiveModel;
use crate::attention::Attention;
use crate::conditioning::Conditioning;
use crate::config::{ArConfig, Architecture, ConditioningConfig, ModulationConfig, PositionConfig};
use crate::embeddings::Embeddings;
use crate::error::Result;
use crate::model::{Block, FeedForward, Gpt};
use crate::modulation::{LayerModulation, ModelModulation};
use crate::position::Positions;
use crate::spec::ArSpec;

/// The kernels' format for weights of `precision`; `None` where there is no kernel for it.
pub(super) fn format(precision: Precision) -> Option<Format> {
    match precision {
        Precision::Fp32 => Some(Format::F32),
        Precision::Bf16 => Some(Format::Bf16),
        Precision::Int8 => Some(Format::Int8),
        Precision::Fp16 => None,
    }
}

/// None today. An option of the configuration that is not decided on here does not compile, nor does a new
/// variant of one.
pub(super) fn unsupported_reason(config: &ArConfig) -> Option<String> {
    let ArConfig {
        kind: Architecture::Gpt,
        width: _,
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
        qk_norm: _,
        modulation: ModulationConfig::None | ModulationConfig::AdaLn | ModulationConfig::SimpleAdaLn,
        dropout: _, // acts in training alone
    } = config;
    None
}

/// A transformer packed for the CPU's kernels, many times faster than libtorch with few rows. Activations
/// between products are fp32 in every format.
#[derive(Debug)]
pub struct CpuDecoder {
    kernels: kernels::Decoder,
    embeddings: Embeddings,
    layers: Vec<LayerModulation>,
    modulation: ModelModulation,
    config: ArConfig,
    spec: ArSpec,
}

impl CpuDecoder {
    /// Packs the weights and empties their variables. The process keeps the memory of one step for the next:
    /// a row of logits is so large that the C library would give it back.
    pub(super) fn new(gpt: Gpt, format: Format) -> Self {
        let Gpt { mut embeddings, rope, layers, norm, modulation, output, config, spec } = gpt;
        libtorch_ext::runtime::keep_freed_memory();
        let shape = kernels::Shape {
            width: config.width as usize,
            heads: config.heads as usize,
            kv_heads: config.num_kv_heads() as usize,
            hidden: config.feed_forward_width() as usize,
            vocabulary: config.vocab_size as usize,
            eps: config.norm_eps as f32,
        };
        let (norm, output) = (values(norm.weight()), release(output.weight()));
        // Heads are what attention is shared out by; far more threads than those would only wait.
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).min(shape.heads);
        let rope = rope.as_ref().map(values);
        let mut kernels = kernels::Decoder::new(shape, format, &norm, &output, rope, threads);
        let layers = layers.into_iter().map(|block| push(&mut kernels, block)).collect();
        embeddings.compute = Kind::Float;
        CpuDecoder { kernels, embeddings, layers, modulation, config, spec }
    }

    /// The configuration of the network.
    pub fn config(&self) -> &ArConfig {
        &self.config
    }

    /// Bytes of the weights that a step reads.
    pub fn weight_bytes(&self) -> usize {
        self.kernels.bytes()
    }

    /// Gives a cache the condition as the layers need it: the mask of a text, and the adaptive norms.
    fn prepare(&self, cond: &Conditioning, prefix: &Tensor, cache: &mut kernels::KvCache) {
        let rows = cond.prefix_mask().map(|mask| {
            let (_, t) = mask.size2().expect("masks are (B, T)");
            let flat = Vec::<bool>::try_from(mask.to_kind(Kind::Bool).contiguous().view(-1))
                .expect("bool tensors are copied to bool vectors");
            flat.chunks(t as usize).map(<[bool]>::to_vec).collect::<Vec<_>>()
        });
        cache.set_prefix_mask(&rows.unwrap_or_default());
        if let Some((layers, last)) = self.modulations(prefix) {
            cache.modulate(layers.iter().map(values).collect(), values(&last));
        }
    }

    /// Adaptive norms under a condition (B, 1, D): of each layer (B, 6, D), of the final norm (B, 2, D).
    fn modulations(&self, condition: &Tensor) -> Option<(Vec<Tensor>, Tensor)> {
        let last = Tensor::cat(&self.modulation.last_parts(Some(condition))?, 1);
        let shared = self.modulation.condition(Some(condition));
        let layer = |layer: &LayerModulation| layer.parts(&shared).map(|parts| Tensor::cat(&parts, 1));
        Some((self.layers.iter().filter_map(layer).collect(), last))
    }

    /// Runs (B, S, D) from position `from` on; logits of the positions that are `wanted`, `rows` in all.
    fn run(
        &self,
        cache: &mut kernels::KvCache,
        x: &Tensor,
        from: i64,
        wanted: impl Fn(i64) -> bool,
        rows: i64,
    ) -> Tensor {
        let (b, s, _) = x.size3().expect("inputs are (B, S, D)");
        let all = (0..b).flat_map(|sequence| (0..s).map(move |i| (sequence, i)));
        let token = |(sequence, i)| Token { sequence: sequence as usize, position: (from + i) as usize };
        let tokens: Vec<Token> = all.clone().map(token).collect();
        let wanted: Vec<usize> = all.enumerate().filter(|(_, (_, i))| wanted(*i)).map(|(n, _)| n).collect();
        let size = [rows, self.kernels.shape().vocabulary as i64];
        tensor_of(&size, |logits| self.kernels.forward(cache, &tokens, &values(x), &wanted, logits))
            .expect("libtorch has memory for logits")
    }
}

impl AutoregressiveModel for CpuDecoder {
    type Cache = kernels::KvCache;

    fn spec(&self) -> &ArSpec {
        &self.spec
    }

    fn check_conditioning(&self, cond: &Conditioning) -> Result<()> {
        self.embeddings.check(cond)
    }

    fn null_conditioning(&self, like: &Conditioning) -> Conditioning {
        self.embeddings.embedder.null(like)
    }

    fn new_cache(&self, batch: i64) -> kernels::KvCache {
        self.kernels.new_cache(batch as usize, (self.spec.prefix_len + self.spec.num_tokens) as usize)
    }

    fn prefill(&self, cond: &Conditioning, cache: &mut kernels::KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let x = self.embeddings.prefix(cond, None); // (B, T, D)
        self.prepare(cond, &x, cache);
        let (b, t, _) = x.size3().expect("prefixes are (B, T, D)");
        self.run(cache, &x, 0, |i| i + 1 == t, b)
    }

    fn decode_chunk(&self, codes: &Tensor, position: i64, cache: &mut kernels::KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let (b, k) = codes.size2().expect("codes are (B, K)");
        let x = self.embeddings.codes(codes, Positions::Range(position));
        self.run(cache, &x, position, |_| true, b * k).view([b, k, -1])
    }

    fn batch_multiple(&self) -> i64 {
        1
    }

    fn has_own_threads(&self) -> bool {
        true
    }

    fn logits(&self, cond: &Conditioning, codes: &Tensor) -> Tensor {
        let _guard = tch::no_grad_guard();
        let x = self.embeddings.sequence(cond, codes, None); // (B, T + N − 1, D)
        let (b, s, _) = x.size3().expect("inputs are (B, S, D)");
        let mut cache = self.kernels.new_cache(b as usize, s as usize);
        let t = self.spec.prefix_len;
        self.prepare(cond, &x.narrow(1, 0, t), &mut cache);
        self.run(&mut cache, &x, 0, |i| i + 1 >= t, b * (s - t + 1)).view([b, s - t + 1, -1])
    }
}

/// Appends a layer to the kernels' decoder; its modulation stays with libtorch.
fn push(decoder: &mut kernels::Decoder, block: Block) -> LayerModulation {
    let Block { attention, feed_forward, attention_norm, ffn_norm, modulation, drop_path: _ } = block;
    let Attention { wqkv, wo, qk_norm, heads: _, kv_heads: _ } = attention;
    let FeedForward { w1, w2, w3 } = feed_forward;
    let [wqkv, wo, w1, w2, w3] = [wqkv, wo, w1, w2, w3].map(|linear| release(linear.weight()));
    let [attention_norm, ffn_norm] = [attention_norm, ffn_norm].map(|norm| values(norm.weight()));
    let qk_norm = qk_norm.map(|(q, k)| [q.weight(), q.bias(), k.weight(), k.bias()].map(values));
    decoder.push(kernels::Block {
        wqkv: &wqkv,
        wo: &wo,
        w1: &w1,
        w2: &w2,
        w3: &w3,
        attention_norm: &attention_norm,
        ffn_norm: &ffn_norm,
        qk_norm: qk_norm.as_ref().map(|parts| parts.each_ref().map(Vec::as_slice)),
    });
    modulation
}

/// All values of a tensor in fp32, row after row.
fn values(t: &Tensor) -> Vec<f32> {
    let flat = t.to_kind(Kind::Float).contiguous().view(-1);
    Vec::<f32>::try_from(flat).expect("fp32 tensors are copied to fp32 vectors")
}

/// The values of a weight, whose memory is given back.
fn release(weight: &Tensor) -> Vec<f32> {
    let values = values(weight);
    weight.shallow_clone().set_data(&Tensor::empty([0], (weight.kind(), weight.device())));
    values
}
