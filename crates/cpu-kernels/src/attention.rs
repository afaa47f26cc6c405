//! Attention of one new position over a KV cache, one head of one sequence at a time, without
//! copies.
//!
//! Keys are stored in blocks of 16 positions, channel by channel, so that 16 scores are summed side
//! by side; values are stored position by position.

use crate::element::Element;
use crate::isa::for_each_isa;
use crate::math::{exp, fma};

/// Positions in a block of keys.
pub const BLOCK: usize = 16;

/// Writes a key (head width) at `position` of a head's keys.
pub(crate) fn write_key<T: Element>(keys: &mut [T], position: usize, key: &[f32]) {
    let block = &mut keys[position / BLOCK * BLOCK * key.len()..][..BLOCK * key.len()];
    for (slot, &k) in block.iter_mut().skip(position % BLOCK).step_by(BLOCK).zip(key) {
        *slot = T::write(k);
    }
}

/// Writes a value (padded to the width of `values`' rows) at `position` of a head's values.
pub(crate) fn write_value<T: Element>(values: &mut [T], position: usize, value: &[f32]) {
    for (slot, &v) in values[position * value.len()..][..value.len()].iter_mut().zip(value) {
        *slot = T::write(v);
    }
}

for_each_isa! {
    /// `softmax(q K / sqrt(width)) V` over positions `0..length` in single precision. `q` has the
    /// head's width, `out` the values' padded width. `masked` marks those of the first positions
    /// that are not attended to. `scores` is scratch space for `length` rounded up to a block.
    pub fn attend_f32(q: &[f32], keys: &[f32], values: &[f32], length: usize, masked: &[bool], scores: &mut [f32],
        out: &mut [f32]) = attend_f32_body
}

for_each_isa! {
    /// As [`attend_f32`], over a cache in bfloat16.
    pub fn attend_bf16(q: &[f32], keys: &[u16], values: &[u16], length: usize, masked: &[bool], scores: &mut [f32],
        out: &mut [f32]) = attend_bf16_body
}

#[inline(always)]
fn attend_f32_body<const FUSED: bool>(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    length: usize,
    masked: &[bool],
    scores: &mut [f32],
    out: &mut [f32],
) {
    attend::<FUSED, f32>(q, keys, values, length, masked, scores, out);
}

#[inline(always)]
fn attend_bf16_body<const FUSED: bool>(
    q: &[f32],
    keys: &[u16],
    values: &[u16],
    length: usize,
    masked: &[bool],
    scores: &mut [f32],
    out: &mut [f32],
) {
    attend::<FUSED, u16>(q, keys, values, length, masked, scores, out);
}

#[inline(always)]
fn attend<const FUSED: bool, T: Element>(
    q: &[f32],
    keys: &[T],
    values: &[T],
    length: usize,
    masked: &[bool],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let scores = &mut scores[..length.next_multiple_of(BLOCK)];
    score::<FUSED, T>(q, keys, scores);
    for score in scores[length..].iter_mut() {
        *score = f32::NEG_INFINITY;
    }
    for (score, _) in scores.iter_mut().zip(masked).filter(|(_, masked)| **masked) {
        *score = f32::NEG_INFINITY;
    }
    softmax::<FUSED>(scores);
    weigh::<FUSED, T>(&scores[..length], values, out);
}

/// Scores of whole blocks. Four partial sums hide the latency of the additions.
#[inline(always)]
fn score<const FUSED: bool, T: Element>(q: &[f32], keys: &[T], scores: &mut [f32]) {
    let scale = 1.0 / (q.len() as f32).sqrt();
    let blocks = keys.chunks_exact(BLOCK * q.len());
    for (block, scores) in blocks.zip(scores.as_chunks_mut::<BLOCK>().0) {
        let mut sums = [[0.0f32; BLOCK]; 4];
        let (quads, rest) = block.as_chunks::<{ 4 * BLOCK }>();
        let (q_quads, q_rest) = q.as_chunks::<4>();
        for (quad, q) in quads.iter().zip(q_quads) {
            for (part, sums) in sums.iter_mut().enumerate() {
                for (lane, s) in sums.iter_mut().enumerate() {
                    *s = fma::<FUSED>(quad[part * BLOCK + lane].read(), q[part], *s);
                }
            }
        }
        for (keys, q) in rest.as_chunks::<BLOCK>().0.iter().zip(q_rest) {
            for (s, k) in sums[0].iter_mut().zip(keys) {
                *s = fma::<FUSED>(k.read(), *q, *s);
            }
        }
        for (lane, score) in scores.iter_mut().enumerate() {
            *score = ((sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane])) * scale;
        }
    }
}

/// Softmax in place, over whole blocks; masked positions hold -inf.
#[inline(always)]
fn softmax<const FUSED: bool>(scores: &mut [f32]) {
    let blocks = scores.as_chunks_mut::<BLOCK>().0;
    let mut most = [f32::NEG_INFINITY; BLOCK];
    for block in blocks.iter() {
        for (m, s) in most.iter_mut().zip(block) {
            *m = if *s > *m { *s } else { *m };
        }
    }
    let most = most.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let mut sums = [0.0f32; BLOCK];
    for block in blocks.iter_mut() {
        for (sum, s) in sums.iter_mut().zip(block) {
            let e = exp::<FUSED>(*s - most);
            *s = if *s == f32::NEG_INFINITY { 0.0 } else { e };
            *sum += *s;
        }
    }
    let scale = 1.0 / sums.iter().sum::<f32>();
    for s in blocks.iter_mut().flatten() {
        *s *= scale;
    }
}

/// Weighted sum of the values, 64 channels at a time.
#[inline(always)]
fn weigh<const FUSED: bool, T: Element>(weights: &[f32], values: &[T], out: &mut [f32]) {
    let width = out.len();
    let (wide, rest) = out.as_chunks_mut::<64>();
    for (i, out) in wide.iter_mut().enumerate() {
        part::<FUSED, T, 64>(weights, &values[i * 64..], width, out);
    }
    let from = width - rest.len();
    for (i, out) in rest.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        part::<FUSED, T, 16>(weights, &values[from + i * 16..], width, out);
    }
}

#[inline(always)]
fn part<const FUSED: bool, T: Element, const W: usize>(
    weights: &[f32],
    values: &[T],
    width: usize,
    out: &mut [f32; W],
) {
    let mut sums = [0.0f32; W];
    for (weight, row) in weights.iter().zip(values.chunks(width)) {
        let row: &[T; W] = row.first_chunk().expect("rows of values are whole");
        for (s, v) in sums.iter_mut().zip(row) {
            *s = fma::<FUSED>(v.read(), *weight, *s);
        }
    }
    *out = sums;
}
