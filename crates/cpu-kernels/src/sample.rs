//! Sampling a code from a row of logits, without sorting them.

use crate::isa::for_each_isa;
use crate::math::exp64;

/// Sets entries that are not among the `k` largest to −inf; ties with the k-th stay. Keeps
/// everything if `k` is 0 or at least the row's length.
pub fn top_k_mask(logits: &mut [f32], k: usize) {
    if k == 0 || k >= logits.len() {
        return;
    }
    let mut sorted = logits.to_vec();
    let (_, threshold, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let threshold = *threshold;
    for logit in logits.iter_mut().filter(|l| **l < threshold) {
        *logit = f32::NEG_INFINITY;
    }
}

/// Inverse-CDF sampling in double precision: the first entry whose cumulative probability exceeds
/// `uniform`, from 0 to below 1. Entries at −inf are never sampled. `None` if the row is no
/// distribution: an entry is NaN or +inf, or all are −inf.
pub fn inverse_cdf_sample(isa: crate::Isa, logits: &[f32], uniform: f64) -> Option<usize> {
    let most = f64::from(largest(isa, logits));
    let mut blocks = vec![0.0; logits.len().div_ceil(BLOCK)];
    sum_exponentials(isa, logits, most, &mut blocks);
    let total = blocks.iter().sum::<f64>();
    if !(total > 0.0 && total.is_finite()) {
        return None;
    }
    let target = uniform * total;
    let (mut sum, mut last) = (0.0, 0);
    for (number, (block, total)) in logits.chunks(BLOCK).zip(&blocks).enumerate() {
        if sum + total <= target {
            sum += total;
            continue;
        }
        let mut weights = [0.0; BLOCK];
        exponentials(isa, block, most, &mut weights[..block.len()]);
        for (i, weight) in weights.into_iter().enumerate().filter(|(_, w)| *w > 0.0) {
            last = number * BLOCK + i;
            sum += weight;
            if sum > target {
                return Some(last);
            }
        }
    }
    // Reached by rounding only: the last entry of nonzero probability.
    Some(logits.iter().rposition(|&l| f64::from(l) - most > UNDERFLOW)?.max(last))
}

/// Entries summed at a time.
const BLOCK: usize = 128;

/// Below this an exponential is zero.
const UNDERFLOW: f64 = -700.0;

/// Entries processed side by side.
const LANES: usize = 16;

for_each_isa! {
    /// The largest entry.
    pub fn largest(logits: &[f32]) -> f32 = largest_body
}

#[inline(always)]
fn largest_body<const FUSED: bool>(logits: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (wide, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in wide {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *logit);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
}

for_each_isa! {
    /// `exp(logit - most)` in double precision.
    pub fn exponentials(logits: &[f32], most: f64, out: &mut [f64]) = exponentials_body
}

#[inline(always)]
fn exponentials_body<const FUSED: bool>(logits: &[f32], most: f64, out: &mut [f64]) {
    for (o, l) in out.iter_mut().zip(logits) {
        *o = exp64::<FUSED>(f64::from(*l) - most);
    }
}

for_each_isa! {
    /// Sum of `exp(logit - most)` over each block of 128, in double precision.
    pub fn sum_exponentials(logits: &[f32], most: f64, out: &mut [f64]) = sum_exponentials_body
}

#[inline(always)]
fn sum_exponentials_body<const FUSED: bool>(logits: &[f32], most: f64, out: &mut [f64]) {
    for (sum, block) in out.iter_mut().zip(logits.chunks(BLOCK)) {
        let (wide, rest) = block.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for chunk in wide {
            for (lane, logit) in lanes.iter_mut().zip(chunk) {
                *lane += exp64::<FUSED>(f64::from(*logit) - most);
            }
        }
        for (lane, logit) in lanes.iter_mut().zip(rest) {
            *lane += exp64::<FUSED>(f64::from(*logit) - most);
        }
        *sum = lanes.iter().sum();
    }
}
