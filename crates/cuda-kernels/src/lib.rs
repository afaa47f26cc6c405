//! Decoding a transformer on a GPU with kernels of its own: five launches a layer where libtorch's operations take some
//! twenty, weights of 8 bits, and a cache of 8 bits; one launch each to embed and to draw codes. And a tokenizer's group
//! norms over maps that lie channels last, the order in which convolutions are fastest and for which libtorch has none.
//!
//! The GPU's counterpart of `kernels`: the decoder walks through the layers, over tensors of libtorch. Products of up to
//! [`FEW`] rows read each weight once, with norm, residual sum and SwiGLU on the way; those of more rows are libtorch's,
//! where arithmetic bounds. The sources are in `cuda/`, compiled for the GPU at hand when first needed; the tests run
//! them on the processor.

mod cache;
mod decoder;
mod draw;
mod group_norm;
mod sources;
mod weight;

pub use cache::KvCache;
pub use decoder::{Block, Decoder, Inputs, Shape};
pub use draw::{Draw, draw};
pub use group_norm::{Norm, group_norm};
pub use sources::all as sources;
pub use weight::FEW;

use libtorch_ext::Error;

/// Errors of the kernels.
pub type Result<T> = std::result::Result<T, Error>;

/// How weights or keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// bfloat16.
    Bf16,
    /// Integers of 8 bits with a scale for each output of a weight, or for each position and head of a cache.
    Int8,
}

impl Format {
    /// Its name in the kernels' sources.
    fn name(self) -> &'static str {
        match self {
            Format::Bf16 => "bf16",
            Format::Int8 => "int8",
        }
    }

    /// Numbers in the 16 bytes that a thread reads at a time.
    pub(crate) fn chunk(self) -> i64 {
        match self {
            Format::Bf16 => 8,
            Format::Int8 => 16,
        }
    }

    /// Of the tensors that hold it.
    fn kind(self) -> tch::Kind {
        match self {
            Format::Bf16 => tch::Kind::BFloat16,
            Format::Int8 => tch::Kind::Int8,
        }
    }
}
