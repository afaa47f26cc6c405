//! CPU kernels: decoding a transformer a few rows at a time (packed matrices, attention over a KV
//! cache, the decoder that runs them on all cores in step, sampling of a code), and layers over a
//! tokenizer's feature maps (group norm with its SiLU, 3×3 convolutions).
//!
//! Slices of numbers in, slices out; no tensors and no files. One of the two crates that may
//! contain `unsafe` code. Every kernel for a particular instruction set has a plain counterpart in
//! safe Rust, which the tests compare it with. A row's result depends neither on the other rows nor
//! on the number of threads: each number is summed in one order, whatever the tile.
#![allow(unsafe_code)]

pub mod attention;
mod decoder;
mod element;
mod group_norm;
mod isa;
pub mod math;
pub mod matmul;
mod memory;
pub mod roofline;
pub mod sample;
mod thread_pool;
mod winograd;

pub use decoder::{Block, Decoder, KvCache, Shape, Token};
pub use group_norm::{Norm, NormElement, group_norm};
pub use isa::{Format, Isa, has_amx_bf16};
pub use matmul::{Matrix, PackedActivations};
pub use thread_pool::{ThreadPool, Worker};
pub use winograd::{ConvElement, Map, Winograd};
