//! Elementary functions of numbers and rows.

use crate::isa::for_each_isa;

/// `a · b + c`, rounded once if `FUSED`.
#[inline(always)]
pub(crate) fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn fma64<const FUSED: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// eˣ to within two units in the last place, without branches: x = n ln 2 + r, and a polynomial in
/// r.
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to a whole number
    let x = x.clamp(-87.3, 88.7);
    let shifted = fma::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FUSED>(n, -LN2_LOW, fma::<FUSED>(n, -LN2_HIGH, x));
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
        p = fma::<FUSED>(p, r, c);
    }
    let p = fma::<FUSED>(p * r, r, r) + 1.0;
    // Two factors, as 2ⁿ alone overflows at the upper end.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n - half)
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

/// eˣ for x ≤ 0 in double precision, to within two units in the last place; 0 below -700.
#[inline(always)]
pub(crate) fn exp64<const FUSED: bool>(x: f64) -> f64 {
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2⁵²
    let small = x < -700.0;
    let x = if small { -700.0 } else { x };
    let shifted = fma64::<FUSED>(x, std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma64::<FUSED>(n, -LN2_LOW, fma64::<FUSED>(n, -LN2_HIGH, x));
    // The Taylor series: |r| ≤ 0.347, so that the next term is below 1e-17.
    let mut p = 1.0 / 6_227_020_800.0;
    for c in [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
    ] {
        p = fma64::<FUSED>(p, r, c);
    }
    let p = fma64::<FUSED>(p * r, r, r) + 1.0;
    let n = (shifted.to_bits() as i64).wrapping_sub(ROUND.to_bits() as i64);
    let y = p * f64::from_bits(((n + 1023) << 52) as u64);
    if small { 0.0 } else { y }
}

/// Converts to bfloat16, rounding to nearest, ties to even. NaN stays NaN.
#[inline(always)]
pub(crate) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16) as u16;
    if x.is_nan() { 0x7FC0 } else { rounded }
}

/// Converts from bfloat16.
#[inline(always)]
pub(crate) fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// Sums in sixteen lanes, each in order, then over the lanes in order: vector code with one result
/// on every processor.
#[inline(always)]
pub(crate) fn sum_of<const FUSED: bool>(x: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = term(*v, *lane);
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane = term(*v, *lane);
    }
    lanes.iter().sum()
}

for_each_isa! {
    /// `x · rsqrt(mean(x²) + eps) · weight` of each row of `x` (rows, width) into `out`.
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_body
}

#[inline(always)]
fn rms_norm_body<const FUSED: bool>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mean = sum_of::<FUSED>(x, |v, s| fma::<FUSED>(v, v, s)) / width as f32;
        let scale = 1.0 / (mean + eps).sqrt();
        for ((o, v), w) in out.iter_mut().zip(x).zip(weight) {
            *o = v * scale * w;
        }
    }
}

for_each_isa! {
    /// Layer norm of one row in place.
    pub fn layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) = layer_norm_body
}

#[inline(always)]
fn layer_norm_body<const FUSED: bool>(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let n = x.len() as f32;
    let mean = sum_of::<FUSED>(x, |v, s| v + s) / n;
    let variance = sum_of::<FUSED>(x, |v, s| fma::<FUSED>(v - mean, v - mean, s)) / n;
    let scale = 1.0 / (variance + eps).sqrt();
    for ((v, w), b) in x.iter_mut().zip(weight).zip(bias) {
        *v = fma::<FUSED>((*v - mean) * scale, *w, *b);
    }
}

for_each_isa! {
    /// `silu(gate) · up` into `out`.
    pub fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) = swiglu_body
}

#[inline(always)]
fn swiglu_body<const FUSED: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
        *o = g / (1.0 + exp::<FUSED>(-g)) * u;
    }
}

/// Rotates adjacent channel pairs of one head by `table` (pairs of cosine and sine).
pub(crate) fn rotate(x: &mut [f32], table: &[f32]) {
    for (pair, angle) in x.as_chunks_mut::<2>().0.iter_mut().zip(table.as_chunks::<2>().0) {
        let ([a, b], [cos, sin]) = (*pair, *angle);
        *pair = [a * cos - b * sin, b * cos + a * sin];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_right_to_the_last_places() {
        let mut worst = (0.0f64, 0.0f64);
        for i in 0..200_000 {
            let x = -87.0 + f64::from(i) * (175.0 / 200_000.0);
            let y = (x as f32) as f64;
            worst.0 = worst.0.max((f64::from(exp::<false>(x as f32)) / y.exp() - 1.0).abs());
            worst.1 = worst.1.max((exp64::<false>(-x.abs() * 7.0) / (-x.abs() * 7.0).exp() - 1.0).abs());
        }
        assert!(worst.0 < 2.5e-7, "{}", worst.0);
        assert!(worst.1 < 5e-16, "{}", worst.1);
        assert_eq!((exp::<false>(0.0), exp64::<false>(0.0)), (1.0, 1.0));
        assert_eq!(exp64::<false>(f64::NEG_INFINITY), 0.0);
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        for (x, expected) in [(1.0f32, 0x3F80), (1.003_906_2, 0x3F80), (1.011_718_8, 0x3F82), (-2.0, 0xC000)]
        {
            assert_eq!(to_bf16(x), expected, "{x}");
        }
        for bits in [0x7F80_0001u32, 0x7FFF_FFFF, 0xFFC0_0000, 0xFFFF_FFFF] {
            assert!(from_bf16(to_bf16(f32::from_bits(bits))).is_nan(), "{bits:x}");
        }
        assert_eq!(from_bf16(to_bf16(f32::NEG_INFINITY)), f32::NEG_INFINITY);
    }
}
