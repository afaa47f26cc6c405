//! Numbers that are a pure function of a tensor's name and a seed: the weights of goldens, and of
//! runs without a weight file.
//!
//! Element i of tensor NAME under SEED: a SplitMix64 stream whose start is `FNV-1a-64(NAME) ^ SEED
//! · 0x9E37…7C15`, 24 bits of it scaled to [lo, hi) in f64 and rounded to f32 once.

use crate::hash::fnv1a;
use crate::rng::mix;

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The stream of tensor `name`; each value holds 24 good bits at the top.
pub(crate) fn words(name: &str, seed: u64) -> impl Iterator<Item = u64> {
    let s = fnv1a(name) ^ seed.wrapping_mul(GOLDEN);
    (1u64..).map(move |i| mix(s.wrapping_add(i.wrapping_mul(GOLDEN))))
}

/// The fp32 values in [lo, hi) that tensor `name` gets under `seed`.
pub fn synthetic_values(name: &str, seed: u64, n: usize, lo: f64, hi: f64) -> Vec<f32> {
    let unit = |z: u64| (z >> 40) as f64 / (1u64 << 24) as f64;
    words(name, seed).take(n).map(|z| (lo + (hi - lo) * unit(z)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipe_matches_its_published_check_values() {
        assert_eq!(fnv1a("check"), 0x830C_F176_3726_0A67);
        assert_eq!(
            synthetic_values("check", 1, 4, -1.0, 1.0),
            [0.577_295_4, 0.454_464_55, 0.053_441_405, 0.036_836_386]
        );
        assert_eq!(
            synthetic_values("a.weight", 5001, 3, 0.0, 0.05),
            [0.044_473_797, 0.015_966_352, 0.026_399_229]
        );
    }
}
