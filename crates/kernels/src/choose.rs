//! One code from a row of logits, without sorting them.

use crate::isa::for_each_isa;
use crate::math::exp64;

/// Removes entries (−inf) that are not among the `k` largest; ties with the k-th stay. Keeps everything where `k` is
/// 0 or not below the row's length.
pub fn keep_largest(logits: &mut [f32], k: usize) {
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

/// The first entry whose cumulative probability exceeds `uniform` (from 0 to below 1), in double precision: what
/// inverting the cumulative distribution gives. Entries at −inf are never chosen. `weights` is room for the row.
///
/// # Panics
/// If the row is empty.
pub fn invert(isa: crate::Isa, logits: &[f32], uniform: f64, weights: &mut Vec<f64>) -> usize {
    let most = logits.iter().fold(f32::NEG_INFINITY, |m, &l| if l > m { l } else { m });
    weights.resize(logits.len(), 0.0);
    exponentials(isa, logits, f64::from(most), weights);
    let blocks: Vec<f64> = weights.chunks(BLOCK).map(|block| block.iter().sum()).collect();
    let target = uniform * blocks.iter().sum::<f64>();
    let mut sum = 0.0;
    let mut last = 0;
    for (block, total) in weights.chunks(BLOCK).zip(&blocks).enumerate().map(|(i, (b, t))| ((i, b), t)) {
        let (number, block) = block;
        if sum + total <= target {
            sum += total;
            continue;
        }
        for (i, weight) in block.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            last = number * BLOCK + i;
            sum += weight;
            if sum > target {
                return last;
            }
        }
    }
    // Only rounding can bring us here: the last entry that has any probability.
    match weights.iter().rposition(|&w| w > 0.0) {
        Some(i) => i.max(last),
        None => 0,
    }
}

/// Entries summed at a time.
const BLOCK: usize = 128;

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
