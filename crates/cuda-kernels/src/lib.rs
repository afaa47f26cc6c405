//! CUDA kernels for decoding a transformer: five launches per layer where libtorch's operations
//! take some twenty, 8-bit weights, and an 8-bit KV cache; one launch each to embed and to sample
//! codes. Also group norms over channels-last maps, the layout in which convolutions are fastest
//! and for which libtorch has no group norm.
//!
//! The GPU's counterpart of `cpu-kernels`, on libtorch's tensors. Products of up to
//! [`GEMV_MAX_ROWS`] rows read each weight once, with norm, residual sum and SwiGLU fused; those of
//! more rows, which are compute-bound, are libtorch's. The sources are in `cuda/`, compiled at
//! first use for the GPU at hand; tests run them on the CPU.

mod cache;
mod decoder;
mod group_norm;
mod sample;
mod sources;
mod weight;

pub use cache::KvCache;
pub use decoder::{Block, Decoder, Inputs, Places, Shape};
pub use group_norm::{Norm, group_norm};
pub use sample::{SampleArgs, sample};
pub use sources::all as sources;
pub use weight::GEMV_MAX_ROWS;

use libtorch_ext::Error;

/// Errors of the kernels.
pub type Result<T> = std::result::Result<T, Error>;

/// Storage format of weights, or of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// bfloat16.
    Bf16,
    /// 8-bit integers with a scale per output of a weight, or per position and head of a cache.
    Int8,
}

impl Format {
    /// Name of the type in the kernels' sources.
    fn name(self) -> &'static str {
        match self {
            Format::Bf16 => "bf16",
            Format::Int8 => "int8",
        }
    }

    /// Numbers in the 16 bytes that a thread loads at a time.
    pub(crate) fn chunk(self) -> i64 {
        match self {
            Format::Bf16 => 8,
            Format::Int8 => 16,
        }
    }

    /// Dtype of the tensors that hold it.
    fn kind(self) -> tch::Kind {
        match self {
            Format::Bf16 => tch::Kind::BFloat16,
            Format::Int8 => tch::Kind::Int8,
        }
    }
}
