//! The autoregressive transformer: p(codes | condition).
//!
//! Holds the network in its released flavours, its conditioning and its KV cache, and loads its checkpoints.
//! Drawing codes from its logits belongs to `sampler`, optimisation to `train`.

mod attention;
mod conditioning;
mod config;
mod error;
mod gpu;
mod kv_cache;
mod model;
mod modulation;
mod open;
mod packed;
mod position;
pub mod released;

pub use conditioning::Conditioning;
pub use config::{ArConfig, ConditioningConfig, DropoutConfig, ModulationConfig, PositionConfig};
pub use error::{Error, Result};
pub use gpu::GpuFormats;
pub use kv_cache::{Cache, KvCache};
pub use model::{ArSpec, AutoregressiveModel, Gpt, RecordableModel, TeacherForced};
pub use open::{Loaded, key_map, open, open_dir};
pub use position::rope_2d;
