//! Decoding with custom kernels: one decoder, generic over the kernels of a device.
//!
//! B sequences, S positions, T prefix positions, N codes, D width, V vocabulary

use std::fmt::Debug;

use nn::{LayerNorm, Linear};
use tch::{Device, Kind, Tensor};

use super::step::positions_of;
use super::{AutoregressiveModel, CacheRow, CapturableStep, RowwiseModel};
use crate::attention::Attention;
use crate::conditioning::Conditioning;
use crate::config::ArConfig;
use crate::embeddings::Embeddings;
use crate::error::Result;
use crate::model::{Block, FeedForward};
use crate::modulation::LayerModulation;
use crate::position::Positions;
use crate::spec::ArSpec;

/// Kernels that run a transformer's layers and output layer, with weights in their own format.
pub trait DecodeKernels: Debug + Sized {
    /// KV cache in the kernels' format.
    type Cache;
    /// Whether the kernels run on their own threads; see [`AutoregressiveModel::has_own_threads`].
    const OWN_THREADS: bool;
    /// A cache for `batch` sequences of up to `length` positions.
    fn new_cache(&self, batch: i64, length: i64) -> Self::Cache;
    /// Bytes of the weights that a step reads.
    fn weight_bytes(&self) -> usize;
    /// Stores the condition in the cache as the layers need it; `prefix` is its embedding,
    /// (B, T, D).
    fn set_condition(&self, cond: &Conditioning, prefix: &Tensor, cache: &mut Self::Cache);
    /// Stores the conditions of some rows of the cache, as [`DecodeKernels::set_condition`] does for
    /// all; `prefix` is (R, T, D).
    fn set_conditions(&self, cond: &Conditioning, prefix: &Tensor, rows: &[i64], cache: &mut Self::Cache);
    /// Runs inputs (B, S, D) from `position` on; logits of the last `wanted` positions,
    /// (B, wanted, V) fp32.
    fn forward(&self, x: Tensor, position: i64, wanted: i64, cache: &mut Self::Cache) -> Tensor;
    /// Runs inputs (R, S, D) of some rows, each from its own position on; logits of the last `wanted`
    /// positions of each, (R, wanted, V) fp32.
    fn forward_rows(&self, x: Tensor, rows: &[CacheRow], wanted: i64, cache: &mut Self::Cache) -> Tensor;
    /// Embeds codes (B, K) from `position` on, if the kernels do that too.
    fn embed(&self, _codes: &Tensor, _position: i64, _cache: &Self::Cache) -> Option<Tensor> {
        None
    }
    /// Embeds codes (R, K), each row's from its own position on, if the kernels do that too.
    fn embed_rows(&self, _codes: &Tensor, _rows: &[CacheRow]) -> Option<Tensor> {
        None
    }
    /// A decode step of this decoder that can be captured, if there is one.
    fn capturable(_decoder: &KernelDecoder<Self>) -> Option<&dyn CapturableStep<Self::Cache>> {
        None
    }
}

/// A transformer packed for `K`. Embeddings and adaptive norms are computed by libtorch, in fp32.
#[derive(Debug)]
pub struct KernelDecoder<K> {
    pub(super) kernels: K,
    embeddings: Embeddings,
    config: ArConfig,
    spec: ArSpec,
}

impl<K: DecodeKernels> KernelDecoder<K> {
    pub(super) fn new(kernels: K, mut embeddings: Embeddings, config: ArConfig, spec: ArSpec) -> Self {
        embeddings.compute = Kind::Float;
        KernelDecoder { kernels, embeddings, config, spec }
    }

    /// Configuration of the network.
    pub fn config(&self) -> &ArConfig {
        &self.config
    }

    /// Bytes of the weights that a step reads.
    pub fn weight_bytes(&self) -> usize {
        self.kernels.weight_bytes()
    }
}

impl<K: DecodeKernels> AutoregressiveModel for KernelDecoder<K> {
    type Cache = K::Cache;

    fn spec(&self) -> &ArSpec {
        &self.spec
    }

    fn check_conditioning(&self, cond: &Conditioning) -> Result<()> {
        self.embeddings.check(cond)
    }

    fn null_conditioning(&self, like: &Conditioning) -> Conditioning {
        self.embeddings.embedder.null(like)
    }

    fn new_cache(&self, batch: i64) -> K::Cache {
        self.kernels.new_cache(batch, self.spec.prefix_len + self.spec.num_tokens)
    }

    fn prefill(&self, cond: &Conditioning, cache: &mut K::Cache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let x = self.embeddings.prefix(cond, None); // (B, T, D)
        self.kernels.set_condition(cond, &x, cache);
        self.kernels.forward(x, 0, 1, cache).squeeze_dim(1)
    }

    fn decode_chunk(&self, codes: &Tensor, position: i64, cache: &mut K::Cache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let embedded = self.kernels.embed(codes, position, cache);
        let x = embedded.unwrap_or_else(|| self.embeddings.codes(codes, Positions::Range(position)));
        self.kernels.forward(x, position, codes.size()[1], cache)
    }

    fn batch_multiple(&self) -> i64 {
        1
    }

    fn has_own_threads(&self) -> bool {
        K::OWN_THREADS
    }

    fn logits(&self, cond: &Conditioning, codes: &Tensor) -> Tensor {
        let _guard = tch::no_grad_guard();
        let x = self.embeddings.sequence(cond, codes, None); // (B, T + N − 1, D)
        let (b, s, _) = x.size3().expect("inputs are (B, S, D)");
        let mut cache = self.kernels.new_cache(b, s);
        let t = self.spec.prefix_len;
        self.kernels.set_condition(cond, &x.narrow(1, 0, t), &mut cache);
        self.kernels.forward(x, 0, s - t + 1, &mut cache)
    }

    fn capturable(&self) -> Option<&dyn CapturableStep<K::Cache>> {
        K::capturable(self)
    }
}

impl<K: DecodeKernels> RowwiseModel for KernelDecoder<K> {
    fn device(&self) -> Device {
        self.embeddings.device()
    }

    fn prefill_rows(&self, cond: &Conditioning, rows: &[i64], cache: &mut K::Cache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let x = self.embeddings.prefix(cond, None); // (R, T, D)
        self.kernels.set_conditions(cond, &x, rows, cache);
        let first: Vec<CacheRow> = rows.iter().map(|&row| CacheRow { row, position: 0 }).collect();
        self.kernels.forward_rows(x, &first, 1, cache).squeeze_dim(1)
    }

    fn decode_rows(&self, codes: &Tensor, rows: &[CacheRow], cache: &mut K::Cache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let k = codes.size()[1];
        let embedded = self.kernels.embed_rows(codes, rows);
        let x = embedded.unwrap_or_else(|| {
            let positions = positions_of(rows, k, codes.device());
            self.embeddings.codes(codes, Positions::Each(&positions))
        });
        self.kernels.forward_rows(x, rows, k, cache)
    }
}

/// A layer taken apart: weights to pack, and the modulation, which stays with libtorch.
pub(super) struct LayerWeights {
    pub wqkv: Linear,
    pub wo: Linear,
    pub w1: Linear,
    pub w2: Linear,
    pub w3: Linear,
    pub attention_norm: Tensor,
    pub ffn_norm: Tensor,
    pub qk_norm: Option<(LayerNorm, LayerNorm)>,
    pub modulation: LayerModulation,
}

impl From<Block> for LayerWeights {
    fn from(block: Block) -> Self {
        let Block { attention, feed_forward, attention_norm, ffn_norm, modulation, drop_path: _ } = block;
        let Attention { wqkv, wo, qk_norm, heads: _, kv_heads: _ } = attention;
        let FeedForward { w1, w2, w3 } = feed_forward;
        let [attention_norm, ffn_norm] = [attention_norm, ffn_norm].map(|norm| norm.weight().shallow_clone());
        LayerWeights { wqkv, wo, w1, w2, w3, attention_norm, ffn_norm, qk_norm, modulation }
    }
}

/// Empties a packed weight, whoever else holds it.
pub(super) fn release(weight: &Tensor) {
    weight.shallow_clone().set_data(&Tensor::empty([0], (weight.kind(), weight.device())));
}
