//! KV cache of the libtorch backend: allocated once, written in place, reused between calls.

use tch::{Device, Kind, Tensor};

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
        };
        (write(keys, k), write(values, v))
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
}
