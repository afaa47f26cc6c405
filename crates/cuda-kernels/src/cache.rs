//! Keys and values of the positions seen so far.

use tch::{Device, Kind, Tensor};

use crate::{Format, sources};

/// For a number of sequences; allocated once, so that a recorded step finds it where it was.
///
/// B sequences, H heads of keys and values, L positions, K channels of a head or more, the rest zero
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<Layer>,
    pub(crate) format: Format,
    pub(crate) length: i64,
    /// Which positions of the prefix are seen, (B, T) uint8; `None`: all.
    pub(crate) seen: Option<Tensor>,
    positions: Tensor, // (L) int64, each its own number
}

#[derive(Debug)]
pub(crate) struct Layer {
    pub keys: Stored,
    pub values: Stored,
}

/// Keys or values.
#[derive(Debug)]
pub(crate) struct Stored {
    pub numbers: Tensor,       // (B, H, L, K)
    pub scale: Option<Tensor>, // (B, H, L) fp32
}

impl Stored {
    fn new([b, h, l]: [i64; 3], width: i64, format: Format, device: Device) -> Self {
        Stored {
            numbers: Tensor::zeros([b, h, l, width], (format.kind(), device)),
            scale: (format == Format::Int8).then(|| Tensor::zeros([b, h, l], (Kind::Float, device))),
        }
    }

    fn bytes(&self) -> u64 {
        let bytes = |t: &Tensor| (t.numel() * t.kind().elt_size_in_bytes()) as u64;
        bytes(&self.numbers) + self.scale.as_ref().map_or(0, bytes)
    }
}

impl KvCache {
    /// Zeros for `[sequences, heads, length]` with heads of `head` channels.
    pub(crate) fn new(layers: usize, size: [i64; 3], head: i64, format: Format, device: Device) -> Self {
        let stored = || Stored::new(size, sources::stored_width(head, format), format, device);
        KvCache {
            layers: (0..layers).map(|_| Layer { keys: stored(), values: stored() }).collect(),
            format,
            length: size[2],
            seen: None,
            positions: Tensor::arange(size[2], (Kind::Int64, device)),
        }
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.keys.bytes() + layer.values.bytes()).sum()
    }

    /// From now on only those positions of the prefix are seen that this (B, T) says; `None`: all. Takes the place of the
    /// last one of its shape, where a recorded step reads it.
    pub fn see(&mut self, prefix: Option<&Tensor>) {
        let new = prefix.map(|p| p.to_kind(Kind::Bool).to_kind(Kind::Uint8).contiguous());
        match (&mut self.seen, new) {
            (Some(old), Some(new)) if old.size() == new.size() => old.copy_(&new),
            (seen, new) => *seen = new,
        }
    }

    /// A position's number, (1) int64 on the device, without a copy to it.
    pub fn position(&self, position: i64) -> Tensor {
        self.positions.narrow(0, position, 1)
    }
}
