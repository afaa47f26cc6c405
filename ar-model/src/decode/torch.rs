//! Decoding with libtorch's operations: the network itself, with a KV cache.
//!
//! B batch, T prefix length, K new positions, D width, V vocabulary, L positions of the cache

use base::Mode;
use libtorch_ext::cuda_kernel::KernelLauncher;
use tch::{Device, Kind, Tensor};

use super::{AutoregressiveModel, CapturableStep};
use crate::attention::{AttentionInput, fused_width, is_fused};
use crate::conditioning::Conditioning;
use crate::config::ArConfig;
use crate::error::Result;
use crate::kv_cache::KvCache;
use crate::model::{Gpt, prefix_lm_mask};
use crate::position::Positions;
use crate::spec::ArSpec;

/// None: all configurations are supported.
pub(super) fn unsupported_reason(_: &ArConfig) -> Option<String> {
    None
}

impl Gpt {
    /// Runs new positions, (B, S, D), through the cache; logits of the last `wanted` of them,
    /// (B, wanted, V).
    fn cached(
        &self,
        x: Tensor,
        positions: Positions,
        wanted: i64,
        mask: Option<&Tensor>,
        cache: &mut KvCache,
    ) -> Tensor {
        let skipped = x.size()[1] - wanted;
        let condition = cache.condition.as_ref().map(Tensor::shallow_clone);
        let input = AttentionInput { positions, rope: self.rope.as_ref(), mask, dropout: 0.0 };
        let x = self.cached_layers(x, &input, condition.as_ref(), cache);
        self.final_norm_and_head(&x.narrow(1, skipped, wanted), condition.as_ref())
    }
}

impl AutoregressiveModel for Gpt {
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
        let c = &self.config;
        let length = self.spec.prefix_len + c.num_tokens;
        let (kind, device, head) = (self.embeddings.compute, self.embeddings.device(), c.width / c.heads);
        let width = if is_fused(kind, device) { fused_width(head) } else { head };
        KvCache::new(c.layers, [batch, c.num_kv_heads(), length], width, kind, device)
    }

    fn prefill(&self, cond: &Conditioning, cache: &mut KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let x = self.embeddings.prefix(cond, None);
        let condition = self.modulation.needs_condition().then(|| x.copy());
        cache.keep(condition, cond.prefix_mask().map(|m| m.to_kind(Kind::Bool).copy()));
        let mask = cache.prefix_mask.as_ref().map(|m| prefix_lm_mask(m, self.spec.prefix_len));
        self.cached(x, Positions::Range(0), 1, mask.as_ref(), cache).squeeze_dim(1)
    }

    fn decode_chunk(&self, codes: &Tensor, position: i64, cache: &mut KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let (_, k) = codes.size2().expect("codes are (B, K)");
        let positions = Positions::Range(position);
        let x = self.embeddings.codes(codes, positions);
        let mask = chunk_mask(cache.prefix_mask.as_ref(), position, k, x.device());
        self.cached(x, positions, k, mask.as_ref(), cache)
    }

    fn logits(&self, cond: &Conditioning, codes: &Tensor) -> Tensor {
        self.forward(cond, codes, Mode::Eval)
    }

    fn capturable(&self) -> Option<&dyn CapturableStep<KvCache>> {
        Some(self)
    }
}

impl CapturableStep<KvCache> for Gpt {
    fn decode_step_at(&self, codes: &Tensor, position: &Tensor, length: i64, cache: &mut KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let positions = Positions::Dynamic { position, length };
        let x = self.embeddings.codes(codes, positions);
        let mask = decode_mask(cache.prefix_mask.as_ref(), position, length);
        self.cached(x, positions, 1, Some(&mask), cache).squeeze_dim(1)
    }

    fn launcher(&self) -> Option<&'static dyn KernelLauncher> {
        None
    }
}

/// Attention mask of `k` new positions from `position` on over L = position + k positions,
/// (B or 1, 1, k, L) bool: causal, and excluding the padding of the prefix (B, T). `None`: no mask.
fn chunk_mask(prefix: Option<&Tensor>, position: i64, k: i64, device: Device) -> Option<Tensor> {
    let columns = prefix.map(|m| {
        let (b, t) = m.size2().expect("masks are (B, T)");
        let rest = Tensor::ones([b, position + k - t], (Kind::Bool, device));
        Tensor::cat(&[m, &rest], 1).view([b, 1, 1, position + k])
    });
    let causal = (k > 1).then(|| Tensor::ones([1, 1, k, position + k], (Kind::Bool, device)).tril(position));
    match (columns, causal) {
        (Some(columns), Some(causal)) => Some(columns.logical_and(&causal)),
        (columns, causal) => columns.or(causal),
    }
}

/// Attention mask of one new position over the first `length` entries of the cache,
/// (1 or B, 1, 1, length) bool.
fn decode_mask(prefix: Option<&Tensor>, position: &Tensor, length: i64) -> Tensor {
    let past = Tensor::arange(length, (Kind::Int64, position.device())).le_tensor(position); // (length)
    match prefix {
        Some(m) => {
            let (b, t) = m.size2().expect("masks are (B, T)");
            let rest = Tensor::ones([b, length - t], (Kind::Bool, m.device()));
            let columns = Tensor::cat(&[m, &rest], 1);
            columns.logical_and(&past).view([b, 1, 1, length])
        }
        None => past.view([1, 1, 1, length]),
    }
}
