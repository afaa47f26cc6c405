//! Decoding with libtorch's operations: the network itself, with a KV cache.
//!
//! B batch, T prefix length, K new positions, D width, V vocabulary, L positions of the cache

use base::Mode;
use libtorch_ext::cuda_kernel::KernelLauncher;
use tch::{Device, Kind, Tensor};

use std::collections::BTreeMap;

use super::step::positions_of;
use super::{AutoregressiveModel, CacheRow, CapturableStep, RowwiseModel};
use crate::attention::{AttentionInput, fused_width, is_fused};
use crate::cache_rows::{CacheRows, Group, Selection};
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
        let input = AttentionInput { positions, rows: None, rope: self.rope.as_ref(), mask, dropout: 0.0 };
        let x = self.cached_layers(x, &input, condition.as_ref(), cache);
        self.final_norm_and_head(&x.narrow(1, skipped, wanted), condition.as_ref())
    }

    /// Runs new positions (R, S, D) of some rows, at `positions` (R, S); logits of the last `wanted`
    /// of each, (R, wanted, V).
    fn cached_rows(
        &self,
        x: Tensor,
        positions: &Tensor,
        rows: &CacheRows,
        wanted: i64,
        cache: &mut KvCache,
    ) -> Tensor {
        let skipped = x.size()[1] - wanted;
        let condition = cache.condition.as_ref().map(|all| rows.select(all));
        let input = AttentionInput {
            positions: Positions::Each(positions),
            rows: Some(rows),
            rope: self.rope.as_ref(),
            mask: None,
            dropout: 0.0,
        };
        let x = self.cached_layers(x, &input, condition.as_ref(), cache);
        self.final_norm_and_head(&x.narrow(1, skipped, wanted), condition.as_ref())
    }

    /// Rows that step by `k` codes, in groups that attend together.
    fn stepping_rows(&self, rows: &[CacheRow], k: i64, cache: &KvCache) -> CacheRows {
        let device = self.embeddings.device();
        let prefix = cache.prefix_mask.as_ref();
        let groups = match device {
            Device::Cpu => groups_by_position(rows, k, prefix),
            _ => vec![masked_group(rows, k, prefix, device)],
        };
        CacheRows::new(&numbers(rows), groups, device)
    }
}

fn numbers(rows: &[CacheRow]) -> Vec<i64> {
    rows.iter().map(|row| row.row).collect()
}

/// Rows of equal position, on the CPU, with copies of the first of them up to a multiple of 8: as
/// many as attend together in [`AutoregressiveModel::decode_step`].
fn groups_by_position(rows: &[CacheRow], k: i64, prefix: Option<&Tensor>) -> Vec<Group> {
    let mut at: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    rows.iter().enumerate().for_each(|(i, row)| at.entry(row.position).or_default().push(i));
    let group = |(position, members): (i64, Vec<usize>)| {
        let members = padded(&members);
        let cache_rows: Vec<i64> = members.iter().map(|&i| rows[i].row).collect();
        let members: Vec<i64> = members.into_iter().map(|i| i as i64).collect();
        let selected = Selection::new(&cache_rows, Device::Cpu);
        let prefix = prefix.map(|all| selected.of(all));
        Group {
            members: Selection::new(&members, Device::Cpu),
            mask: chunk_mask(prefix.as_ref(), position, k, Device::Cpu),
            rows: selected,
            length: position + k,
        }
    };
    at.into_iter().map(group).collect()
}

/// All rows, each with a mask that ends at its position.
fn masked_group(rows: &[CacheRow], k: i64, prefix: Option<&Tensor>, device: Device) -> Group {
    let (count, selected) = (rows.len() as i64, Selection::new(&numbers(rows), device));
    let length = rows.iter().map(|row| row.position + k).max().unwrap_or(0);
    let past = Tensor::arange(length, (Kind::Int64, device)).view([1, 1, length]);
    let past = past.le_tensor(&positions_of(rows, k, device).unsqueeze(2)).unsqueeze(1); // (R, 1, k, L)
    let columns = prefix.map(|all| {
        let m = selected.of(all);
        let rest = Tensor::ones([count, length - m.size()[1]], (Kind::Bool, device));
        Tensor::cat(&[m, rest], 1).view([count, 1, 1, length])
    });
    let members: Vec<i64> = (0..count).collect();
    Group {
        members: Selection::new(&members, device),
        mask: Some(columns.map_or_else(|| past.shallow_clone(), |columns| columns.logical_and(&past))),
        rows: selected,
        length,
    }
}

/// The items and copies of the first up to a multiple of [`AutoregressiveModel::batch_multiple`].
fn padded<T: Copy>(items: &[T]) -> Vec<T> {
    let missing = items.len().next_multiple_of(ROWS) - items.len();
    items.iter().chain(items.iter().take(1).cycle().take(missing)).copied().collect()
}

/// Rows of a batch are a multiple of this: see [`AutoregressiveModel::batch_multiple`].
const ROWS: usize = 8;

impl RowwiseModel for Gpt {
    fn device(&self) -> Device {
        self.embeddings.device()
    }

    fn prefill_rows(&self, cond: &Conditioning, rows: &[i64], cache: &mut KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let (device, t) = (self.embeddings.device(), self.spec.prefix_len);
        let numbers: Vec<i64> = (0..rows.len() as i64).collect();
        let (cond, rows) = (cond.select(&Tensor::from_slice(&padded(&numbers))), padded(rows));
        let (count, selected) = (rows.len() as i64, Selection::new(&rows, device));
        let x = self.embeddings.prefix(&cond, None);
        let condition = self.modulation.needs_condition().then_some(&x);
        let prefix = cond.prefix_mask().map(|m| m.to_kind(Kind::Bool));
        let mask = prefix.as_ref().map(|m| prefix_lm_mask(m, t));
        let members: Vec<i64> = (0..count).collect();
        let group = Group { members: Selection::new(&members, device), rows: selected, length: t, mask };
        let at = CacheRows::new(&rows, vec![group], device);
        cache.keep_rows(at.index(), condition, prefix.as_ref());
        let positions = Tensor::arange(t, (Kind::Int64, device)).expand([count, t], false).contiguous();
        let logits = self.cached_rows(x.shallow_clone(), &positions, &at, 1, cache);
        logits.narrow(0, 0, numbers.len() as i64).squeeze_dim(1)
    }

    fn decode_rows(&self, codes: &Tensor, rows: &[CacheRow], cache: &mut KvCache) -> Tensor {
        let _guard = tch::no_grad_guard();
        let (count, k) = codes.size2().expect("codes are (R, K)");
        let numbers: Vec<i64> = (0..count).collect();
        let codes = codes.index_select(0, &Tensor::from_slice(&padded(&numbers)).to_device(codes.device()));
        let (rows, device) = (padded(rows), self.embeddings.device());
        let positions = positions_of(&rows, k, device);
        let x = self.embeddings.codes(&codes, Positions::Each(&positions));
        let at = self.stepping_rows(&rows, k, cache);
        self.cached_rows(x, &positions, &at, k, cache).narrow(0, 0, count)
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
