//! The KV cache: keys and values of earlier positions.

use tch::{Device, Kind, Tensor};

use crate::{Format, sources};

/// Keys and values of a fixed number of sequences. Allocated once, so that a captured step can
/// refer to the memory.
///
/// B sequences, H heads of keys and values, L positions, K channels of a head, padded with zeros
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<Layer>,
    pub(crate) format: Format,
    pub(crate) length: i64,
    /// Attention mask of the prefix, (B, T) uint8; `None`: all positions are attended to.
    pub(crate) prefix_mask: Option<Tensor>,
    positions: Tensor, // (L) int64, each its own number
}

#[derive(Debug)]
pub(crate) struct Layer {
    pub keys: QuantizedTensor,
    pub values: QuantizedTensor,
}

/// Keys or values of a layer.
#[derive(Debug)]
pub(crate) struct QuantizedTensor {
    pub data: Tensor,          // (B, H, L, K)
    pub scale: Option<Tensor>, // (B, H, L) fp32
}

impl QuantizedTensor {
    fn new([b, h, l]: [i64; 3], width: i64, format: Format, device: Device) -> Self {
        QuantizedTensor {
            data: Tensor::zeros([b, h, l, width], (format.kind(), device)),
            scale: (format == Format::Int8).then(|| Tensor::zeros([b, h, l], (Kind::Float, device))),
        }
    }

    fn bytes(&self) -> u64 {
        let bytes = |t: &Tensor| (t.numel() * t.kind().elt_size_in_bytes()) as u64;
        bytes(&self.data) + self.scale.as_ref().map_or(0, bytes)
    }
}

impl KvCache {
    /// Zeros for `[sequences, heads, length]` and heads of `head` channels.
    pub(crate) fn new(layers: usize, size: [i64; 3], head: i64, format: Format, device: Device) -> Self {
        let tensor = || QuantizedTensor::new(size, sources::padded_head_dim(head, format), format, device);
        KvCache {
            layers: (0..layers).map(|_| Layer { keys: tensor(), values: tensor() }).collect(),
            format,
            length: size[2],
            prefix_mask: None,
            positions: Tensor::arange(size[2], (Kind::Int64, device)),
        }
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.keys.bytes() + layer.values.bytes()).sum()
    }

    /// Sets the attention mask of the prefix, (B, T); `None`: all positions are attended to. A mask
    /// of the previous one's shape is written to the same memory, where a captured step reads it.
    pub fn set_prefix_mask(&mut self, prefix: Option<&Tensor>) {
        let new = prefix.map(|p| p.to_kind(Kind::Bool).to_kind(Kind::Uint8).contiguous());
        match (&mut self.prefix_mask, new) {
            (Some(old), Some(new)) if old.size() == new.size() => old.copy_(&new),
            (prefix_mask, new) => *prefix_mask = new,
        }
    }

    /// Sets the attention masks of some sequences' prefixes: `rows` (R) int64, `prefix` (R, T).
    pub fn set_prefix_mask_of(&mut self, rows: &Tensor, prefix: &Tensor) {
        let new = prefix.to_kind(Kind::Bool).to_kind(Kind::Uint8);
        let size = [self.sequences(), new.size()[1]];
        let old = self.prefix_mask.take().filter(|old| old.size() == size);
        let mut all = old.unwrap_or_else(|| Tensor::ones(size, (Kind::Uint8, new.device())));
        let _ = all.index_copy_(0, rows, &new);
        self.prefix_mask = Some(all);
    }

    /// Number of sequences.
    pub fn sequences(&self) -> i64 {
        self.layers.first().map_or(0, |layer| layer.keys.data.size()[0])
    }

    /// A position as a tensor, (1) int64 on the device, without a copy from the host.
    pub fn position(&self, position: i64) -> Tensor {
        self.positions.narrow(0, position, 1)
    }
}
