//! Causal self-attention, teacher-forced or with the cache.
//!
//! B batch, S positions, D width, H heads, G heads of keys and values, K head width

use base::Scope;
use libtorch_ext::fused;
use nn::{LayerNorm, Linear, dropout};
use tch::{Device, Kind, Tensor};

use crate::cache_rows::CacheRows;
use crate::config::ArConfig;
use crate::kv_cache::KvCache;
use crate::position::{Positions, rotate};

/// Positions, mask and dropout of an attention call.
pub(crate) struct AttentionInput<'a> {
    /// Positions of the inputs.
    pub positions: Positions<'a>,
    /// Rows of the cache, for inputs each at its own position ([`Positions::Each`]), with their own
    /// masks.
    pub rows: Option<&'a CacheRows>,
    /// Rotary table, where the model has one.
    pub rope: Option<&'a Tensor>,
    /// Allowed (query, key) pairs, broadcastable to (B, H, S, L); `None`: causal.
    pub mask: Option<&'a Tensor>,
    /// Dropout rate of the attention weights, without a cache only.
    pub dropout: f64,
}

#[derive(Debug)]
pub(crate) struct Attention {
    pub wqkv: Linear, // rows q, k, v
    pub wo: Linear,
    pub qk_norm: Option<(LayerNorm, LayerNorm)>,
    pub heads: i64,
    pub kv_heads: i64,
}

impl Attention {
    pub fn new(p: &Scope, config: &ArConfig) -> Self {
        let (d, k) = (config.width, config.width / config.heads);
        let norm = |name: &str| LayerNorm::new(&(p / name), k, 1e-5);
        Attention {
            wqkv: Linear::new(&(p / "wqkv"), d, config.qkv_width(), config.weight_init(), None),
            wo: Linear::new(&(p / "wo"), d, d, config.weight_init(), None),
            qk_norm: config.qk_norm.then(|| (norm("q_norm"), norm("k_norm"))),
            heads: config.heads,
            kv_heads: config.num_kv_heads(),
        }
    }

    /// (B, S, D) → (B, S, D). With a cache, keys and values are appended to it, and all earlier
    /// positions attended to.
    pub fn forward(
        &self,
        x: &Tensor,
        input: &AttentionInput,
        mut cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor {
        let (b, s, d) = x.size3().expect("activations are (B, S, D)");
        let qkv = self.wqkv.forward(x);
        let plain = input.mask.is_none() && self.qk_norm.is_none() && input.dropout == 0.0;
        if cache.is_none() && plain && self.heads == self.kv_heads && fused::takes(&qkv) {
            let rows = input.rope.map(|table| input.positions.rows(table, 0, s));
            return self.wo.forward(&fused::attention(&qkv, self.heads, rows.as_ref(), true));
        }
        let [h, g] = [self.heads, self.kv_heads];
        // Not three selections, each of whose gradients would have the size of all three.
        let qkv = qkv.view([b, s, h + 2 * g, d / h]).split_with_sizes([h, g, g], 2);
        let [mut q, mut k, v] = heads(qkv); // (B, H, S, K) and twice (B, G, S, K)
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            (q, k) = (q_norm.forward(&q), k_norm.forward(&k));
        }
        if let Some(table) = input.rope {
            let rows = input.positions.angles(table, s);
            (q, k) = (rotate(&q, &rows), rotate(&k, &rows));
        }
        let cached = cache.is_some();
        let fused = cached && is_fused(x.kind(), x.device());
        let merge = |y: Tensor| self.wo.forward(&y.transpose(1, 2).reshape([b, s, d]));
        if let (Some(rows), Positions::Each(positions), Some((cache, layer))) =
            (input.rows, input.positions, &mut cache)
        {
            let (keys, values) = cache.append_rows(*layer, rows, positions, &k, &v);
            let products = if fused { masked_products } else { plain_products };
            return merge(rows.attend(&q, [keys, values], |q, k, v, mask| {
                products(q, &shared(k, h / g), &shared(v, h / g), mask)
            }));
        }
        let (k, v) = match cache {
            Some((cache, layer)) => cache.append(layer, input.positions, &k, &v),
            None => (k, v),
        };
        let (k, v) = (shared(k, h / g), shared(v, h / g));
        let first = matches!(input.positions, Positions::Range(0));
        let causal = first && input.mask.is_none();
        // With a cache, plain products except for a prefix without a mask.
        let y = if input.dropout > 0.0 {
            dropped_products(&q, &k, &v, input.mask, input.dropout)
        } else if !fused && (!first || (cached && input.mask.is_some())) {
            plain_products(&q, &k, &v, input.mask)
        } else {
            fused_products(&q, &k, &v, input.mask, causal)
        };
        merge(y)
    }
}

/// Whether libtorch's fused kernels attend over a cache: in half precision on a GPU, one launch
/// instead of eight. (The official scripts disable them for sampling; the difference is within
/// bfloat16's rounding.)
pub(crate) fn is_fused(kind: Kind, device: Device) -> bool {
    device.is_cuda() && matches!(kind, Kind::BFloat16 | Kind::Half)
}

/// Head width in a cache for the fused kernels, which with a mask support multiples of eight only
/// (GPT-3B has 100).
pub(crate) fn fused_width(head_width: i64) -> i64 {
    (head_width + 7) / 8 * 8
}

/// Repeats each head for the query heads that share it: (B, G, L, K) → (B, H, L, K).
fn shared(x: Tensor, times: i64) -> Tensor {
    if times == 1 { x } else { x.repeat_interleave_self_int(times, 1, None) }
}

/// Queries, keys and values (B, S, H or G, K) → (B, H or G, S, K).
fn heads(qkv: Vec<Tensor>) -> [Tensor; 3] {
    let each: Vec<Tensor> = qkv.into_iter().map(|t| t.transpose(1, 2)).collect();
    each.try_into().expect("queries, keys and values")
}

/// Fused attention: (B, H, S, K) with (B, H, L, K or [`fused_width`]) twice → (B, H, S, K).
/// Channels beyond K are zero.
fn fused_products(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, causal: bool) -> Tensor {
    let width = q.size()[3];
    let padding = k.size()[3] - width;
    if padding == 0 {
        return Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, None, false);
    }
    let scale = 1.0 / (width as f64).sqrt();
    let q = q.constant_pad_nd([0, padding]);
    Tensor::scaled_dot_product_attention(&q, k, v, mask, 0.0, causal, scale, false).narrow(3, 0, width)
}

/// [`fused_products`] with a mask alone.
fn masked_products(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Tensor {
    fused_products(q, k, v, mask, false)
}

/// Attention with dropout on its weights, for training: (B, H, S, K) three times → (B, H, S, K);
/// causal without a mask.
fn dropped_products(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, rate: f64) -> Tensor {
    let s = q.size()[2];
    let causal = || Tensor::ones([s, s], (Kind::Bool, q.device())).tril(0);
    let mask = mask.map_or_else(causal, Tensor::shallow_clone);
    dropout(&attention_weights(q, k, Some(&mask)), rate, true).to_kind(v.kind()).matmul(v)
}

/// Attention by plain products, for decoding: (B, H, S, K) with (B, H, L, K) twice → (B, H, S,
/// K); `mask` broadcasts to (B, H, S, L). As in the official decoding; the CPU's fused kernel with
/// several threads rounds differently for different numbers of sequences, so that an image would
/// depend on its batch.
fn plain_products(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Tensor {
    attention_weights(q, k, mask).to_kind(v.kind()).matmul(v)
}

/// Attention weights: (B, H, S, K) and (B, H, L, K) → (B, H, S, L) fp32.
fn attention_weights(q: &Tensor, k: &Tensor, mask: Option<&Tensor>) -> Tensor {
    let width = q.size()[3] as f64;
    let scores = (q / width.sqrt()).matmul(&k.transpose(-2, -1));
    let scores = match mask {
        Some(allowed) => scores.masked_fill(&allowed.logical_not(), f64::NEG_INFINITY),
        None => scores,
    };
    scores.softmax(-1, Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Heads of 100 channels, like GPT-3B's, in a wider cache.
    #[test]
    fn fused_attention_over_padded_heads_is_that_of_plain_products() {
        let (kind, device) = (Kind::Float, Device::Cpu);
        let random = |s: i64| Tensor::randn([2, 3, s, 100], (kind, device));
        let mut cache = KvCache::new(1, [2, 3, 16], fused_width(100), kind, device);
        let before = Positions::Range(0);
        let (keys, values) = (random(9), random(9));
        let _ = cache.append(0, before, &keys, &values);
        let position = Tensor::from_slice(&[9i64]);
        let (k, v, q) = (random(1), random(1), random(1));
        let (seen_keys, seen_values) =
            cache.append(0, Positions::Dynamic { position: &position, length: 16 }, &k, &v);
        assert_eq!(seen_keys.size(), [2, 3, 16, 104]);
        let mask = Tensor::arange(16, (Kind::Int64, device)).le(9).view([1, 1, 1, 16]);
        let fused = fused_products(&q, &seen_keys, &seen_values, Some(&mask), false);
        let (keys, values) = (Tensor::cat(&[keys, k], 2), Tensor::cat(&[values, v], 2));
        let off = (fused - plain_products(&q, &keys, &values, None)).abs().max().double_value(&[]);
        assert!(off < 1e-5, "{off}");
    }
}
