//! The autoregressive transformer: p(codes | condition).
//!
//! The network in its released variants, its conditioning, the decoders that are made from it, and
//! loading of its checkpoints. Sampling from its logits belongs to `sampler`, optimisation to
//! `train`.

mod attention;
mod cache_rows;
mod conditioning;
mod config;
mod cost;
mod decode;
mod embeddings;
mod error;
mod kv_cache;
mod model;
mod modulation;
mod open;
mod position;
pub mod released;
mod spec;

pub use conditioning::Conditioning;
pub use config::{ArConfig, ConditioningConfig, DropoutConfig, ModulationConfig, PositionConfig};
pub use cost::ArCost;
pub use decode::{
    AutoregressiveModel, Backend, Cache, CacheRow, CapturableStep, CpuDecoder, CpuKernels, DecodeKernels,
    Decoder, GpuDecoder, GpuFormats, GpuKernels, KernelDecoder, RowwiseModel,
};
pub use error::{Error, Result};
pub use kv_cache::KvCache;
pub use model::{Gpt, TeacherForced};
pub use open::{Loaded, key_map, open, open_dir};
pub use position::rope_2d;
pub use spec::ArSpec;
