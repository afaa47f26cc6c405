//! Optimizers with visible state, and gradient clipping.

mod adamw;
mod clip;

pub use adamw::{AdamW, AdamWConfig, Decay, ParamGroup};
pub use clip::{clip_grad_norm, global_norm};
