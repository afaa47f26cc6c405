//! Metrics against third-party code.

pub mod closed_form;
pub mod codebook;
pub mod frechet;
pub mod inception_score;
pub mod kernel;
pub mod merge;
pub mod neighbours;
pub mod pixels;

use tch::{Kind, Tensor};

/// 0/1 flags.
fn flags(values: &[bool]) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Uint8)
}
