//! Products for any processor, one vector of outputs at a time.

use super::{LANES, Scaling, Tile};
use crate::math::from_bf16;

/// Rows computed together, which share each loaded weight.
const ROWS: usize = 4;
/// Inputs whose products fit a 32-bit sum: 127 · 32767 · 512 < 2³¹.
const SUMMED: usize = 512;

pub(super) fn f32(tile: &Tile, w: &[f32], x: &[f32], out: &mut [f32]) {
    by_rows(tile, x, out, |x, sums| {
        for (k, w) in w.as_chunks::<LANES>().0.iter().enumerate() {
            add(w, x, tile.depth, k, sums);
        }
    });
}

/// Weights in bfloat16; `x` in single precision.
pub(super) fn bf16(tile: &Tile, w: &[u16], x: &[f32], out: &mut [f32]) {
    by_rows(tile, x, out, |x, sums| {
        for (k, pairs) in w.as_chunks::<{ 2 * LANES }>().0.iter().enumerate() {
            let (mut even, mut odd) = ([0.0; LANES], [0.0; LANES]);
            for ((pair, even), odd) in pairs.as_chunks::<2>().0.iter().zip(&mut even).zip(&mut odd) {
                (*even, *odd) = (from_bf16(pair[0]), from_bf16(pair[1]));
            }
            add(&even, x, tile.depth, 2 * k, sums);
            add(&odd, x, tile.depth, 2 * k + 1, sums);
        }
    });
}

/// Calls `sum` to accumulate the products of up to [`ROWS`] rows of `x` at a time.
fn by_rows(tile: &Tile, x: &[f32], out: &mut [f32], sum: impl Fn(&[f32], &mut [[f32; LANES]])) {
    let x = x[..tile.rows * tile.depth].chunks(ROWS * tile.depth);
    for (x, out) in x.zip(out.chunks_mut(ROWS * tile.width)) {
        let mut sums = [[0.0f32; LANES]; ROWS];
        let sums = &mut sums[..x.len() / tile.depth];
        sum(x, sums);
        for (sums, out) in sums.iter().zip(out.chunks_mut(tile.width)) {
            out[..LANES].copy_from_slice(sums);
        }
    }
}

/// Adds the products of input `k` of each row.
#[inline(always)]
fn add(w: &[f32; LANES], x: &[f32], depth: usize, k: usize, sums: &mut [[f32; LANES]]) {
    for (x, sums) in x.chunks_exact(depth).zip(sums) {
        for (sum, w) in sums.iter_mut().zip(w) {
            *sum += w * x[k];
        }
    }
}

pub(super) fn int8(tile: &Tile, w: &[i8], x: &[i16], scales: &[f32], scaling: &Scaling, out: &mut [f32]) {
    let quads = w.as_chunks::<{ 4 * LANES }>().0;
    for (row, x) in x[..tile.rows * tile.depth].chunks_exact(tile.depth).enumerate() {
        let mut totals = [0i64; LANES];
        for (quads, x) in quads.chunks(SUMMED / 4).zip(x.chunks(SUMMED)) {
            let mut sums = [0i32; LANES];
            for (quad, x) in quads.iter().zip(x.as_chunks::<4>().0) {
                add_quads(quad, x, &mut sums);
            }
            totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += i64::from(sum));
        }
        let totals = totals.map(|total| total as f32);
        scaling.apply(0, scales[row], &totals, &mut out[row * tile.width..][..LANES]);
    }
}

/// Adds the dot product of four inputs with each output's four weights.
fn add_quads(quads: &[i8; 4 * LANES], x: &[i16; 4], sums: &mut [i32; LANES]) {
    for (quad, sum) in quads.as_chunks::<4>().0.iter().zip(sums) {
        *sum += quad.iter().zip(x).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum::<i32>();
    }
}
