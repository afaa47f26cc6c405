//! The random recipe and tolerances of the goldens (see `tests/goldens/README.md`).

use tch::{Kind, Tensor};

pub use crate::synthetic::synthetic_values;
use crate::synthetic::words;

/// [`synthetic_values`] as a tensor.
pub fn recipe_tensor(name: &str, seed: u64, shape: &[i64], lo: f64, hi: f64) -> Tensor {
    let n = shape.iter().product::<i64>() as usize;
    Tensor::from_slice(&synthetic_values(name, seed, n, lo, hi)).view(shape)
}

/// Integers in `0..n` by the recipe, int64.
pub fn recipe_integers(name: &str, seed: u64, shape: &[i64], n: u64) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<i64> = words(name, seed).take(count).map(|z| (((z >> 40) * n) >> 24) as i64).collect();
    Tensor::from_slice(&values).view(shape)
}

/// `|a - b| / |b|` in the 2-norm, float64; 0 when both vanish.
pub fn rel_l2(found: &Tensor, expected: &Tensor) -> f64 {
    let (a, b) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let norm = |t: &Tensor| t.norm().double_value(&[]);
    let d = norm(&(a - &b));
    if d == 0.0 { 0.0 } else { d / norm(&b).max(f64::MIN_POSITIVE) }
}

/// The largest absolute difference, float64.
pub fn max_abs(found: &Tensor, expected: &Tensor) -> f64 {
    if found.numel() == 0 {
        return 0.0;
    }
    (found.to_kind(Kind::Double) - expected.to_kind(Kind::Double)).abs().max().double_value(&[])
}
