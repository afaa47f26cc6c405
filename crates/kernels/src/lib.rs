//! The arithmetic of decoding a transformer on the CPU, a few rows at a time: packed matrices, attention over a cache,
//! the decoder that walks through them with all cores in step, and the choice of a code; and that of a tokenizer's maps:
//! group norm with its SiLU, and 3×3 convolutions.
//!
//! It knows no tensors and no files: slices of numbers in, slices out. One of the two crates that may hold `unsafe`
//! code; every kernel for a particular processor stands beside a plain one in safe Rust that the tests hold it to. A
//! row's result depends neither on the other rows nor on the number of threads: each of its numbers is summed in one
//! order, whatever the tile it is computed in.
#![allow(unsafe_code)]

pub mod attention;
pub mod ceiling;
pub mod choose;
mod decoder;
mod element;
mod group_norm;
mod isa;
pub mod math;
pub mod matmul;
mod memory;
mod team;
mod winograd;

pub use decoder::{Block, Decoder, KvCache, Shape, Token};
pub use group_norm::{Norm, NormElement, group_norm};
pub use isa::{Format, Isa, has_bf16_matrices};
pub use matmul::{Matrix, Rows};
pub use team::{Member, Team};
pub use winograd::{ConvElement, Map, Winograd};
