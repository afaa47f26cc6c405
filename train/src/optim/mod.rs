//! Optimizers with visible state, and gradient clipping.

mod adamw;
mod clip;
mod lars;

pub use adamw::{AdamW, AdamWConfig, Decay, ParamGroup};
pub use clip::{clip_grad_norm, global_norm};
pub use lars::{Lars, LarsConfig};
