//! The autoregressive transformer: p(codes | condition).
//!
//! Holds the network in its released flavours, its conditioning, and the decoders that are made from it, and
//! loads its checkpoints. Drawing codes from its logits belongs to `sampler`, optimisation to `train`.

mod attention;
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
    AutoregressiveModel, Backend, Cache, CapturableStep, CpuDecoder, Decoder, GpuDecoder, GpuFormats,
};
pub use error::{Error, Result};
pub use kv_cache::KvCache;
pub use model::{Gpt, TeacherForced};
pub use open::{Loaded, key_map, open, open_dir};
pub use position::rope_2d;
pub use spec::ArSpec;
