//! Products with AVX2. Up to six rows by one vector of outputs, in two registers per row, fit the
//! sixteen registers (int8: by half a vector, or two rows by a whole one). A tile is one vector of
//! outputs; its weights stay in the second-level cache, from which further blocks of rows read
//! them.

use std::arch::x86_64::*;

use super::{LANES, Scaling, Tile};

/// Rows computed together.
const ROWS: usize = 6;
/// Rows of integer sums computed together by whole vectors, which take four registers per row.
const WHOLE_ROWS: usize = 2;
/// Quads of inputs whose products fit the 32-bit sums, two in each: 2 · 127 · 32767 · 256 <
/// 2³¹.
const QUADS: usize = 256;
/// Prefetch distance in bytes: the hardware prefetcher stops at each 4 kB page.
const AHEAD: usize = 1024;

/// Calls `$call` for blocks of at most `$most` rows, all about equally large, with `$row` the
/// block's first row, `$R` its number of rows, and `$ahead` its prefetch distance in bytes; the
/// last block prefetches the next tile's weights.
macro_rules! by_rows {
    ($rows:expr, $most:expr, $weights:expr, [$($N:literal),*], |$row:ident, $R:ident, $ahead:ident| $call:expr) => {
        let tiles = $rows.div_ceil($most);
        for tile in 0..tiles {
            let ($row, end) = ($rows * tile / tiles, $rows * (tile + 1) / tiles);
            let $ahead = if tile > 0 && end == $rows { size_of_val($weights) } else { AHEAD };
            match end - $row {
                $($N => {
                    const $R: usize = $N;
                    $call
                })*
                rows => unreachable!("a tile of {rows} rows"),
            }
        }
    };
}

pub(super) fn f32(tile: &Tile, w: &[f32], x: &[f32], out: &mut [f32]) {
    tile.check(w.len(), x.len(), out.len());
    by_rows!(tile.rows, ROWS, w, [1, 2, 3, 4, 5, 6], |row, R, ahead| {
        // SAFETY: `Tile::check` holds, and `Isa` detected the instructions.
        unsafe { f32_tile::<R>(tile, w.as_ptr(), x.as_ptr(), out.as_mut_ptr(), row, ahead) }
    });
}

#[target_feature(enable = "avx2,fma")]
unsafe fn f32_tile<const R: usize>(
    tile: &Tile,
    w: *const f32,
    x: *const f32,
    out: *mut f32,
    row: usize,
    ahead: usize,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: `Tile::check` holds for these pointers and this tile.
    unsafe {
        let x = x.add(row * tile.depth);
        for k in 0..tile.depth {
            let w = w.add(k * LANES);
            prefetch(w, ahead);
            let weights = [_mm256_load_ps(w), _mm256_load_ps(w.add(8))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let input = _mm256_set1_ps(*x.add(r * tile.depth + k));
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = _mm256_fmadd_ps(weight, input, *sum);
                }
            }
        }
        store(tile, out, row, &sums);
    }
}

/// Weights in bfloat16; `x` in single precision.
pub(super) fn bf16(tile: &Tile, w: &[u16], x: &[f32], out: &mut [f32]) {
    tile.check(w.len(), x.len(), out.len());
    by_rows!(tile.rows, ROWS, w, [1, 2, 3, 4, 5, 6], |row, R, ahead| {
        // SAFETY: as in `f32`.
        unsafe { bf16_tile::<R>(tile, w.as_ptr(), x.as_ptr(), out.as_mut_ptr(), row, ahead) }
    });
}

#[target_feature(enable = "avx2,fma")]
unsafe fn bf16_tile<const R: usize>(
    tile: &Tile,
    w: *const u16,
    x: *const f32,
    out: *mut f32,
    row: usize,
    ahead: usize,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    let upper = _mm256_set1_epi32(0xFFFF_0000_u32 as i32);
    // SAFETY: `Tile::check` holds for these pointers and this tile.
    unsafe {
        let x = x.add(row * tile.depth);
        for k in (0..tile.depth).step_by(2) {
            let w = w.add(k * LANES).cast();
            prefetch(w, ahead);
            let pairs = [_mm256_load_si256(w), _mm256_load_si256(w.add(1))];
            // A bfloat16 is the upper half of its number.
            let even = pairs.map(|pair| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pair)));
            let odd = pairs.map(|pair| _mm256_castsi256_ps(_mm256_and_si256(pair, upper)));
            for (r, sums) in sums.iter_mut().enumerate() {
                for (input, weights) in [even, odd].iter().enumerate() {
                    let input = _mm256_set1_ps(*x.add(r * tile.depth + k + input));
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = _mm256_fmadd_ps(*weight, input, *sum);
                    }
                }
            }
        }
        store(tile, out, row, &sums);
    }
}

pub(super) fn int8(tile: &Tile, w: &[i8], x: &[i16], scales: &[f32], scaling: &Scaling, out: &mut [f32]) {
    tile.check(w.len(), x.len(), out.len());
    let mut write = |row: usize, totals: &[[f32; LANES]]| {
        for (r, totals) in totals.iter().enumerate() {
            scaling.apply(0, scales[row + r], totals, &mut out[(row + r) * tile.width..][..LANES]);
        }
    };
    let (w_at, x_at) = (w.as_ptr(), x.as_ptr());
    if tile.rows <= WHOLE_ROWS {
        by_rows!(tile.rows, WHOLE_ROWS, w, [1, 2], |row, R, ahead| {
            let mut totals = [[0.0; LANES]; R];
            // SAFETY: as in `f32`.
            unsafe { int8_tile::<R, 4>(tile, w_at, x_at, row, 0, ahead, &mut totals) };
            write(row, &totals);
        });
        return;
    }
    by_rows!(tile.rows, ROWS, w, [1, 2, 3, 4, 5, 6], |row, R, ahead| {
        let mut totals = [[0.0; LANES]; R];
        // SAFETY: as in `f32`. The second half prefetches nothing: its weights came with the first
        // half's.
        unsafe {
            int8_tile::<R, 2>(tile, w_at, x_at, row, 0, ahead, &mut totals);
            int8_tile::<R, 2>(tile, w_at, x_at, row, 2, 0, &mut totals);
        }
        write(row, &totals);
    });
}

/// Exact sums of `P` parts of four outputs from the part `part` on, rounded once.
#[target_feature(enable = "avx2,fma")]
unsafe fn int8_tile<const R: usize, const P: usize>(
    tile: &Tile,
    w: *const i8,
    x: *const i16,
    row: usize,
    part: usize,
    ahead: usize,
    rounded: &mut [[f32; LANES]; R],
) {
    let mut totals = [[_mm256_setzero_pd(); P]; R]; // four outputs each
    let quads = tile.depth / 4;
    // SAFETY: `Tile::check` holds for these pointers and this tile.
    unsafe {
        let x = x.add(row * tile.depth);
        for first in (0..quads).step_by(QUADS) {
            let mut sums = [[_mm256_setzero_si256(); P]; R]; // two for each output, side by side
            for k in first..quads.min(first + QUADS) {
                let w = w.add(k * 4 * LANES);
                prefetch(w, ahead);
                let mut weights = [_mm256_setzero_si256(); P];
                for (i, weights) in weights.iter_mut().enumerate() {
                    *weights = _mm256_cvtepi8_epi16(_mm_load_si128(w.add((part + i) * 16).cast()));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let inputs = x.add(r * tile.depth + 4 * k).cast::<i64>().read_unaligned();
                    let inputs = _mm256_set1_epi64x(inputs);
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(weights, inputs));
                    }
                }
            }
            for (totals, sums) in totals.iter_mut().zip(&sums) {
                for (total, sums) in totals.iter_mut().zip(sums) {
                    *total = _mm256_add_pd(*total, add_pairs(*sums));
                }
            }
        }
        for (rounded, totals) in rounded.iter_mut().zip(&totals) {
            for (i, total) in totals.iter().enumerate() {
                let place = &mut rounded[(part + i) * 4..][..4];
                _mm_storeu_ps(place.as_mut_ptr(), _mm256_cvtpd_ps(*total));
            }
        }
    }
}

/// Prefetches weights. The address may be beyond the slice, since nothing is read.
#[inline(always)]
fn prefetch<T>(w: *const T, ahead: usize) {
    // SAFETY: a hint, which never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(w.cast::<i8>().wrapping_add(ahead)) };
}

/// Sums of neighbours, exactly.
#[target_feature(enable = "avx2")]
fn add_pairs(sums: __m256i) -> __m256d {
    let low = _mm256_cvtepi32_pd(_mm256_castsi256_si128(sums));
    let high = _mm256_cvtepi32_pd(_mm256_extracti128_si256::<1>(sums));
    // → outputs 0, 2, 1, 3
    _mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_hadd_pd(low, high))
}

/// # Safety
/// As `Tile::check`.
#[target_feature(enable = "avx2")]
unsafe fn store<const R: usize>(tile: &Tile, out: *mut f32, row: usize, sums: &[[__m256; 2]; R]) {
    for (r, sums) in sums.iter().enumerate() {
        for (half, sum) in sums.iter().enumerate() {
            // SAFETY: by the caller.
            unsafe { _mm256_storeu_ps(out.add((row + r) * tile.width + half * 8), *sum) };
        }
    }
}
