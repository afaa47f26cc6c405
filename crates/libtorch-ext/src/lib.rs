//! Safe Rust over functions of libtorch and the system that tch does not bind. One of the two
//! crates that may contain `unsafe` code; it is independent of models.
#![allow(unsafe_code)]

pub mod bytes;
pub mod c10d;
pub mod cuda_graph;
pub mod cuda_kernel;
mod driver;
mod error;
pub mod failure;
pub mod fused;
mod library;
pub mod mmap;
pub mod random;
pub mod runtime;
mod side_by_side;
pub mod tf32;

pub use driver::{CudaDevice, CudaDriver};
pub use error::Error;
pub use side_by_side::{side_by_side, split};
