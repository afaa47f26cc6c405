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

use crate::golden::Golden;

/// 0/1 flags.
fn flags(values: &[bool]) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Uint8)
}

/// Numbers at the end of the scalar names that begin with `beginning`, ascending: manifests record
/// in this way the numbers of neighbours, sizes of chunks and so on.
fn numbers_after(golden: &Golden, beginning: &str) -> Vec<i64> {
    let names = golden.scalar_names().into_iter();
    let mut numbers: Vec<i64> = names.filter_map(|name| name.strip_prefix(beginning)?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}
