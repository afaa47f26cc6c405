//! KV cache of the libtorch backend: allocated once, written in place, reused between calls.

use tch::{Device, Kind, Tensor};

use crate::cache_rows::CacheRows;
use crate::position::Positions;

/// Keys and values of the libtorch backend, and the condition that its steps need.
///
/// B batch, H heads, L length rounded up to a multiple of 8, K head width, padded with zeros
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<(Tensor, Tensor)>, // (B, H, L, K) each
    /// Condition of adaptive norms, set by the prefill: (B, 1, D).
    pub(crate) condition: Option<Tensor>,
    /// Attention mask of the prefix, set by the prefill: (B, T) bool.
    pub(crate) prefix_mask: Option<Tensor>,
}

impl KvCache {
    /// Zeros for `batch` sequences of up to `length` positions in `heads` heads:
    /// `[batch, heads, length]`.
    pub fn new(
        layers: i64,
        [batch, heads, length]: [i64; 3],
        width: i64,
        kind: Kind,
        device: Device,
    ) -> Self {
        let length = (length + 7) / 8 * 8;
        let zeros = || Tensor::zeros([batch, heads, length, width], (kind, device));
        KvCache {
            layers: (0..layers).map(|_| (zeros(), zeros())).collect(),
            condition: None,
            prefix_mask: None,
        }
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        let bytes = |t: &Tensor| (t.numel() * t.kind().elt_size_in_bytes()) as u64;
        self.layers.iter().map(|(k, v)| bytes(k) + bytes(v)).sum()
    }

    /// Writes keys and values (B, H, S, K) at their positions, and returns views of those that
    /// attention reads.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        positions: Positions,
        k: &Tensor,
        v: &Tensor,
    ) -> (Tensor, Tensor) {
        let (keys, values) = &self.layers[layer];
        let write = |cache: &Tensor, new: &Tensor| match positions {
            Positions::Range(from) => {
                let count = new.size()[2];
                cache.narrow(2, from, count).narrow(3, 0, new.size()[3]).copy_(new);
                cache.narrow(2, 0, from + count)
            }
            Positions::Dynamic { position, length } => {
                let _ = cache.narrow(3, 0, new.size()[3]).index_copy_(2, position, new);
                cache.narrow(2, 0, length)
            }
            Positions::Each(_) => unreachable!("rows of a cache are written by `append_rows`"),
        };
        (write(keys, k), write(values, v))
    }

    /// Writes keys and values (R, H, S, K) of some rows at their `positions` (R, S), and returns the
    /// cache's.
    pub(crate) fn append_rows(
        &mut self,
        layer: usize,
        rows: &CacheRows,
        positions: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> (&Tensor, &Tensor) {
        let (keys, values) = &self.layers[layer];
        let at = [Some(rows.index().unsqueeze(1)), None, Some(positions.shallow_clone())];
        for (cache, new) in [(keys, k), (values, v)] {
            let mut cache = cache.narrow(3, 0, new.size()[3]);
            let _ = cache.index_put_(&at, &new.transpose(1, 2), false); // (R, S, H, K)
        }
        (keys, values)
    }

    /// Number of sequences.
    pub fn sequences(&self) -> i64 {
        self.layers.first().map_or(0, |(keys, _)| keys.size()[0])
    }

    /// Stores the condition for the steps after a prefill. A condition of the previous one's shape
    /// is written to the same memory, where a captured step reads it.
    pub(crate) fn keep(&mut self, condition: Option<Tensor>, prefix_mask: Option<Tensor>) {
        let keep = |slot: &mut Option<Tensor>, new: Option<Tensor>| match (slot.as_mut(), new) {
            (Some(old), Some(new)) if old.size() == new.size() && old.kind() == new.kind() => old.copy_(&new),
            (_, new) => *slot = new,
        };
        keep(&mut self.condition, condition);
        keep(&mut self.prefix_mask, prefix_mask);
    }

    /// Stores the conditions of some rows, (R, …) each; `rows` (R) int64.
    pub(crate) fn keep_rows(
        &mut self,
        rows: &Tensor,
        condition: Option<&Tensor>,
        prefix_mask: Option<&Tensor>,
    ) {
        let sequences = self.sequences();
        let keep = |slot: &mut Option<Tensor>, new: Option<&Tensor>| {
            let Some(new) = new else { return };
            let size: Vec<i64> = [sequences].into_iter().chain(new.size().split_off(1)).collect();
            let old = slot.take().filter(|old| old.size() == size && old.kind() == new.kind());
            let mut all = old.unwrap_or_else(|| Tensor::zeros(&size[..], (new.kind(), new.device())));
            let _ = all.index_copy_(0, rows, new);
            *slot = Some(all);
        };
        keep(&mut self.condition, condition);
        keep(&mut self.prefix_mask, prefix_mask);
    }
}
