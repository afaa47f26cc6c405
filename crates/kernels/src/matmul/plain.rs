//! Products for any processor, and with AVX2 where the compiler may use it.

use super::{LANES, Scaling, Tile};
use crate::isa::for_each_isa;
use crate::math::{fma, from_bf16};

/// Rows computed together, so that a weight once loaded serves them all.
const ROWS: usize = 4;

/// Calls `$body::<FUSED, R>` for tiles of [`ROWS`] rows and what is left.
macro_rules! by_rows {
    ($tile:expr, |$row:ident, $vector:ident, $R:ident| $call:expr) => {
        for $vector in 0..$tile.vectors {
            let mut $row = 0;
            while $row < $tile.rows {
                match $tile.rows - $row {
                    1 => {
                        const $R: usize = 1;
                        $call;
                    }
                    2 => {
                        const $R: usize = 2;
                        $call;
                    }
                    3 => {
                        const $R: usize = 3;
                        $call;
                    }
                    _ => {
                        const $R: usize = ROWS;
                        $call;
                    }
                }
                $row += ROWS;
            }
        }
    };
}

for_each_isa! {
    pub fn f32(tile: &Tile, w: &[f32], x: &[f32], out: &mut [f32]) = f32_body
}

#[inline(always)]
fn f32_body<const FUSED: bool>(tile: &Tile, w: &[f32], x: &[f32], out: &mut [f32]) {
    by_rows!(tile, |row, vector, R| {
        let mut sums = [[0.0f32; LANES]; R];
        for (k, w) in w.chunks_exact(tile.vectors * LANES).enumerate() {
            let w = lanes(&w[vector * LANES..]);
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = x[(row + r) * tile.depth + k];
                for (s, w) in sums.iter_mut().zip(w) {
                    *s = fma::<FUSED>(*w, x, *s);
                }
            }
        }
        store(tile, row, vector, &sums, out);
    });
}

for_each_isa! {
    pub fn bf16(tile: &Tile, w: &[u16], x: &[u16], out: &mut [f32]) = bf16_body
}

#[inline(always)]
fn bf16_body<const FUSED: bool>(tile: &Tile, w: &[u16], x: &[u16], out: &mut [f32]) {
    by_rows!(tile, |row, vector, R| {
        let mut sums = [[0.0f32; LANES]; R];
        for (k, w) in w.chunks_exact(2 * tile.vectors * LANES).enumerate() {
            let pairs = &w[2 * vector * LANES..][..2 * LANES];
            let mut even = [0.0f32; LANES];
            let mut odd = [0.0f32; LANES];
            for ((pair, even), odd) in pairs.as_chunks::<2>().0.iter().zip(&mut even).zip(&mut odd) {
                (*even, *odd) = (from_bf16(pair[0]), from_bf16(pair[1]));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let at = (row + r) * tile.depth + 2 * k;
                let (a, b) = (from_bf16(x[at]), from_bf16(x[at + 1]));
                for ((s, even), odd) in sums.iter_mut().zip(&even).zip(&odd) {
                    *s = fma::<FUSED>(*odd, b, fma::<FUSED>(*even, a, *s));
                }
            }
        }
        store(tile, row, vector, &sums, out);
    });
}

for_each_isa! {
    pub fn int8(tile: &Tile, w: &[i8], high: &[u8], low: &[u8], scaling: &Scaling, out: &mut [f32]) = int8_body
}

#[inline(always)]
fn int8_body<const FUSED: bool>(
    tile: &Tile,
    w: &[i8],
    high: &[u8],
    low: &[u8],
    scaling: &Scaling,
    out: &mut [f32],
) {
    by_rows!(tile, |row, vector, R| {
        let mut sums = [[[0i32; LANES]; 2]; R];
        for (k, w) in w.chunks_exact(4 * tile.vectors * LANES).enumerate() {
            let quads = &w[4 * vector * LANES..][..4 * LANES];
            for (r, [highs, lows]) in sums.iter_mut().enumerate() {
                let at = (row + r) * tile.depth + 4 * k;
                add_quads(quads, &high[at..at + 4], highs);
                add_quads(quads, &low[at..at + 4], lows);
            }
        }
        let mut scaled = [[0.0f32; LANES]; R];
        for (r, (scaled, [highs, lows])) in scaled.iter_mut().zip(&sums).enumerate() {
            for (lane, s) in scaled.iter_mut().enumerate() {
                *s = scaling.apply(row + r, vector * LANES + lane, highs[lane], lows[lane]);
            }
        }
        store(tile, row, vector, &scaled, out);
    });
}

/// Adds the dot product of four inputs with each output's four weights.
#[inline(always)]
fn add_quads(quads: &[i8], x: &[u8], sums: &mut [i32; LANES]) {
    let x = [i32::from(x[0]), i32::from(x[1]), i32::from(x[2]), i32::from(x[3])];
    for (quad, sum) in quads.as_chunks::<4>().0.iter().zip(sums) {
        *sum += i32::from(quad[0]) * x[0]
            + i32::from(quad[1]) * x[1]
            + i32::from(quad[2]) * x[2]
            + i32::from(quad[3]) * x[3];
    }
}

#[inline(always)]
fn lanes(w: &[f32]) -> &[f32; LANES] {
    w.first_chunk().expect("groups are whole vectors")
}

#[inline(always)]
fn store<const R: usize>(tile: &Tile, row: usize, vector: usize, sums: &[[f32; LANES]; R], out: &mut [f32]) {
    for (r, sums) in sums.iter().enumerate() {
        let at = (row + r) * tile.width + vector * LANES;
        out[at..at + LANES].copy_from_slice(sums);
    }
}
