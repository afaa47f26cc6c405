//! The random recipe and tolerances of the goldens (see `tests/goldens/README.md`).

use tch::{Kind, Tensor};

use crate::rng::mix;

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3))
}

fn words(name: &str, seed: u64) -> impl Iterator<Item = u64> {
    let s = fnv1a(name) ^ seed.wrapping_mul(GOLDEN);
    (1u64..).map(move |i| mix(s.wrapping_add(i.wrapping_mul(GOLDEN))))
}

/// The fp32 values in [lo, hi) that tensor `name` gets under `seed`.
pub fn recipe_values(name: &str, seed: u64, n: usize, lo: f64, hi: f64) -> Vec<f32> {
    let unit = |z: u64| (z >> 40) as f64 / (1u64 << 24) as f64;
    words(name, seed).take(n).map(|z| (lo + (hi - lo) * unit(z)) as f32).collect()
}

/// [`recipe_values`] as a tensor.
pub fn recipe_tensor(name: &str, seed: u64, shape: &[i64], lo: f64, hi: f64) -> Tensor {
    let n = shape.iter().product::<i64>() as usize;
    Tensor::from_slice(&recipe_values(name, seed, n, lo, hi)).view(shape)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipe_matches_its_published_check_values() {
        assert_eq!(fnv1a("check"), 0x830C_F176_3726_0A67);
        assert_eq!(
            recipe_values("check", 1, 4, -1.0, 1.0),
            [0.577_295_4, 0.454_464_55, 0.053_441_405, 0.036_836_386]
        );
        assert_eq!(
            recipe_values("a.weight", 5001, 3, 0.0, 0.05),
            [0.044_473_797, 0.015_966_352, 0.026_399_229]
        );
    }
}
