//! Products with AVX-512. Up to six rows (int8: three, with two sums each) by up to four vectors
//! keep all their sums in registers.

use std::arch::x86_64::*;

use super::{LANES, Scaling, Tile};

/// Rows of floating-point sums computed together: 6 × 4 sums, 4 weights and an input fit 32
/// registers.
const ROWS: usize = 6;
/// Rows of integer sums computed together, each with a high and a low part.
const INT8_ROWS: usize = 3;

/// Selects the instance of `$kernel` for a number of vectors and of rows.
macro_rules! pick {
    ($vectors:expr, $rows:expr, $kernel:ident, [$($R:literal),*]) => {
        match ($vectors, $rows) {
            $(
                (1, $R) => $kernel::<1, $R>,
                (2, $R) => $kernel::<2, $R>,
                (3, $R) => $kernel::<3, $R>,
                (4, $R) => $kernel::<4, $R>,
            )*
            _ => unreachable!("a tile has 1 to 4 vectors"),
        }
    };
}

pub(super) fn f32(tile: &Tile, w: &[f32], x: &[f32], out: &mut [f32]) {
    tile.check(w.len(), x.len(), out.len());
    type Kernel = unsafe fn(&Tile, *const f32, *const f32, *mut f32, usize);
    for row in (0..tile.rows).step_by(ROWS) {
        let kernel: Kernel = pick!(tile.vectors, (tile.rows - row).min(ROWS), f32_tile, [1, 2, 3, 4, 5, 6]);
        // SAFETY: `Tile::check` holds, and `Isa` detected the instructions.
        unsafe { kernel(tile, w.as_ptr(), x.as_ptr(), out.as_mut_ptr(), row) };
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn f32_tile<const V: usize, const R: usize>(
    tile: &Tile,
    w: *const f32,
    x: *const f32,
    out: *mut f32,
    row: usize,
) {
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: `Tile::check` holds for these pointers and this tile.
    unsafe {
        let x = x.add(row * tile.depth);
        for k in 0..tile.depth {
            let w = w.add(k * V * LANES);
            let mut weights = [_mm512_setzero_ps(); V];
            for (v, weight) in weights.iter_mut().enumerate() {
                *weight = _mm512_load_ps(w.add(v * LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let input = _mm512_set1_ps(*x.add(r * tile.depth + k));
                for (sum, weight) in sums.iter_mut().zip(&weights) {
                    *sum = _mm512_fmadd_ps(*weight, input, *sum);
                }
            }
        }
        store(tile, out, row, &sums);
    }
}

pub(super) fn bf16(tile: &Tile, w: &[u16], x: &[u16], out: &mut [f32]) {
    tile.check(w.len(), x.len(), out.len());
    type Kernel = unsafe fn(&Tile, *const u16, *const u16, *mut f32, usize);
    for row in (0..tile.rows).step_by(ROWS) {
        let kernel: Kernel = pick!(tile.vectors, (tile.rows - row).min(ROWS), bf16_tile, [1, 2, 3, 4, 5, 6]);
        // SAFETY: `Tile::check` holds, and `Isa` detected the instructions.
        unsafe { kernel(tile, w.as_ptr(), x.as_ptr(), out.as_mut_ptr(), row) };
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn bf16_tile<const V: usize, const R: usize>(
    tile: &Tile,
    w: *const u16,
    x: *const u16,
    out: *mut f32,
    row: usize,
) {
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: `Tile::check` holds for these pointers and this tile; the vector types are 64 bytes
    // of any content.
    unsafe {
        let x = x.add(row * tile.depth);
        for k in 0..tile.depth / 2 {
            let w = w.add(k * V * 2 * LANES);
            let mut weights = [_mm512_setzero_si512(); V];
            for (v, weight) in weights.iter_mut().enumerate() {
                *weight = _mm512_load_si512(w.add(v * 2 * LANES).cast());
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let pair = x.add(r * tile.depth + 2 * k).cast::<i32>().read_unaligned();
                let input: __m512bh = std::mem::transmute(_mm512_set1_epi32(pair));
                for (sum, weight) in sums.iter_mut().zip(&weights) {
                    *sum = _mm512_dpbf16_ps(*sum, std::mem::transmute::<__m512i, __m512bh>(*weight), input);
                }
            }
        }
        store(tile, out, row, &sums);
    }
}

/// `bytes` are the inputs' high and low bytes.
pub(super) fn int8(
    tile: &Tile,
    w: &[i8],
    bytes: [&[u8]; 2],
    scales: &[f32],
    scaling: &Scaling,
    out: &mut [f32],
) {
    let [high, low] = bytes;
    tile.check(w.len(), high.len().min(low.len()), out.len());
    type Kernel = unsafe fn(&Tile, *const i8, [*const u8; 2], &[f32], &Scaling, *mut f32, usize);
    for row in (0..tile.rows).step_by(INT8_ROWS) {
        let kernel: Kernel = pick!(tile.vectors, (tile.rows - row).min(INT8_ROWS), int8_tile, [1, 2, 3]);
        // SAFETY: as in `f32`.
        unsafe {
            kernel(tile, w.as_ptr(), bytes.map(<[u8]>::as_ptr), scales, scaling, out.as_mut_ptr(), row)
        };
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn int8_tile<const V: usize, const R: usize>(
    tile: &Tile,
    w: *const i8,
    bytes: [*const u8; 2],
    scales: &[f32],
    scaling: &Scaling,
    out: *mut f32,
    row: usize,
) {
    let mut sums = [[[_mm512_setzero_si512(); V]; 2]; R];
    // SAFETY: `Tile::check` holds for these pointers and this tile.
    unsafe {
        let bytes = bytes.map(|bytes| bytes.add(row * tile.depth));
        for k in 0..tile.depth / 4 {
            let w = w.add(k * V * 4 * LANES);
            let mut weights = [_mm512_setzero_si512(); V];
            for (v, weight) in weights.iter_mut().enumerate() {
                *weight = _mm512_load_si512(w.add(v * 4 * LANES).cast());
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                for (bytes, sums) in bytes.into_iter().zip(sums) {
                    let quad = bytes.add(r * tile.depth + 4 * k).cast::<i32>().read_unaligned();
                    let input = _mm512_set1_epi32(quad);
                    for (sum, weight) in sums.iter_mut().zip(&weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, input, *weight);
                    }
                }
            }
        }
        for (r, [highs, lows]) in sums.iter().enumerate() {
            for v in 0..V {
                let highs: [i32; LANES] = std::mem::transmute(highs[v]);
                let lows: [i32; LANES] = std::mem::transmute(lows[v]);
                let total = |lane| scaling.total(v * LANES + lane, highs[lane], lows[lane]);
                let totals = std::array::from_fn(total);
                let out = out.add((row + r) * tile.width + v * LANES);
                let out = std::slice::from_raw_parts_mut(out, LANES);
                scaling.apply(v * LANES, scales[row + r], &totals, out);
            }
        }
    }
}

/// # Safety
/// As `Tile::check`.
#[target_feature(enable = "avx512f")]
unsafe fn store<const V: usize, const R: usize>(
    tile: &Tile,
    out: *mut f32,
    row: usize,
    sums: &[[__m512; V]; R],
) {
    for (r, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            // SAFETY: by the caller.
            unsafe { _mm512_storeu_ps(out.add((row + r) * tile.width + v * LANES), *sum) };
        }
    }
}
