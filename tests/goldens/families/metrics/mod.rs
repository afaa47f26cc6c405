//! Metrics against third-party code.

pub mod adm;
pub mod closed_form;
pub mod codebook;
pub mod files;
pub mod frechet;
pub mod inception_score;
pub mod kernel;
pub mod merge;
pub mod neighbours;
pub mod pixels;
pub mod reconstruction;

use tch::{Kind, Tensor};

/// 0/1 flags.
fn flags(values: &[bool]) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Uint8)
}
