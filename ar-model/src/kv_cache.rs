//! Keys and values of the positions seen so far: allocated once, written in place, reused between calls.

use tch::{Device, Kind, Tensor};

use crate::position::Positions;

/// Keys and values of the libtorch backend, and the condition that its steps need.
///
/// B batch, H heads, L length rounded up to a multiple of 8, K head width or more, the rest zero
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<(Tensor, Tensor)>, // (B, H, L, K) each
    /// The condition of adaptive norms, kept from prefill: (B, 1, D).
    pub(crate) condition: Option<Tensor>,
    /// Prefix positions that may be attended to, kept from prefill: (B, T) bool.
    pub(crate) prefix_mask: Option<Tensor>,
}

impl KvCache {
    /// Zeros for `batch` sequences of up to `length` positions in `heads` heads: `[batch, heads, length]`.
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

    /// Writes (B, H, S, K) keys and values at their positions, and returns views of all that attention reads.
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

    /// Keeps the condition that the steps after a prefill need, in the memory of the last one where that has
    /// its shape: a captured step reads it there.
    pub(crate) fn keep(&mut self, condition: Option<Tensor>, prefix_mask: Option<Tensor>) {
        let keep = |slot: &mut Option<Tensor>, new: Option<Tensor>| match (slot.as_mut(), new) {
            (Some(old), Some(new)) if old.size() == new.size() && old.kind() == new.kind() => old.copy_(&new),
            (_, new) => *slot = new,
        };
        keep(&mut self.condition, condition);
        keep(&mut self.prefix_mask, prefix_mask);
    }
}
