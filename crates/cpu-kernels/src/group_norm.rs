//! Group normalisation of channels-last maps, fused with the SiLU that follows.
//!
//! P pixels, C channels, G groups

use crate::element::Element;
use crate::isa::{Isa, for_each_isa};
use crate::math::{exp, fma};
use crate::memory::DisjointSlice;
use crate::thread_pool::ThreadPool;

/// Pixels summed in fp32; sums of blocks are added in double precision.
const BLOCK: usize = 128;
/// Size of a map up to which waking the other threads costs more than they save.
const ALONE: usize = 1 << 17;

/// Parameters of a group norm.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// G; divides C.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Scale (C); `None`: 1.
    pub scale: Option<&'a [f32]>,
    /// Shift (C); `None`: 0.
    pub shift: Option<&'a [f32]>,
    /// Whether a SiLU follows.
    pub silu: bool,
}

/// Element of a map that can be normalised: `f32`, or `u16` holding bf16.
#[allow(private_bounds)] // sealed
pub trait NormElement: NormKernels {}
impl NormElement for f32 {}
impl NormElement for u16 {}

/// The kernels of a [`NormElement`].
pub(crate) trait NormKernels: Element {
    fn moments(isa: Isa, x: &[Self], first: &mut [f32], sums: &mut [f32], squares: &mut [f32]);
    fn finish(isa: Isa, x: &[Self], map: &Affine, silu: bool, out: &mut [Self]);
}

impl NormKernels for f32 {
    fn moments(isa: Isa, x: &[f32], first: &mut [f32], sums: &mut [f32], squares: &mut [f32]) {
        moments_f32(isa, x, first, sums, squares);
    }
    fn finish(isa: Isa, x: &[f32], map: &Affine, silu: bool, out: &mut [f32]) {
        finish_f32(isa, x, map, silu, out);
    }
}

impl NormKernels for u16 {
    fn moments(isa: Isa, x: &[u16], first: &mut [f32], sums: &mut [f32], squares: &mut [f32]) {
        moments_bf16(isa, x, first, sums, squares);
    }
    fn finish(isa: Isa, x: &[u16], map: &Affine, silu: bool, out: &mut [u16]) {
        finish_bf16(isa, x, map, silu, out);
    }
}

/// `(x - mean) · scale + shift` for each channel, (C) each. The shift contains the rounding error
/// of the single-precision mean, so that means that are large relative to the variance lose no
/// precision.
pub(crate) struct Affine {
    mean: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// Normalises one image `x` (P, C) into `out`. The result does not depend on the number of threads:
/// sums are taken over the same blocks of pixels in the same order.
///
/// # Panics
/// Panics if lengths do not match.
pub fn group_norm<T: NormElement>(
    pool: &ThreadPool,
    isa: Isa,
    x: &[T],
    channels: usize,
    norm: &Norm,
    out: &mut [T],
) {
    assert!(x.len().is_multiple_of(channels) && channels.is_multiple_of(norm.groups), "shapes do not fit");
    assert!(x.len() == out.len(), "shapes do not fit");
    let blocks = x.len().div_ceil(BLOCK * channels);
    let mut moments = vec![0.0f64; blocks * norm.groups * 2];
    if x.len() <= ALONE || pool.size() == 1 {
        for (x, moments) in x.chunks(BLOCK * channels).zip(moments.chunks_mut(norm.groups * 2)) {
            block_moments(isa, x, channels, moments);
        }
        T::finish(isa, x, &affine(&moments, x.len() / channels, channels, norm), norm.silu, out);
        return;
    }
    let (shared, out) = (DisjointSlice::new(&mut moments), DisjointSlice::new(out));
    pool.run(|m| {
        let own = m.chunk(blocks);
        for block in own.clone() {
            // SAFETY: every block belongs to one worker.
            let moments = unsafe { shared.write(block * norm.groups * 2, norm.groups * 2) };
            block_moments(isa, part(x, block, channels), channels, moments);
        }
        m.barrier();
        // SAFETY: the moments are not written after the barrier.
        let moments = unsafe { shared.read(0, blocks * norm.groups * 2) };
        let map = affine(moments, x.len() / channels, channels, norm);
        // Backwards, since the last blocks are still in the caches.
        for block in own.rev() {
            let x = part(x, block, channels);
            // SAFETY: every block belongs to one worker.
            let out = unsafe { out.write(block * BLOCK * channels, x.len()) };
            T::finish(isa, x, &map, norm.silu, out);
        }
    });
}

fn part<T>(x: &[T], block: usize, channels: usize) -> &[T] {
    let at = block * BLOCK * channels;
    &x[at..x.len().min(at + BLOCK * channels)]
}

/// Mean and sum of squared deviations of each group in a block, (G, 2).
fn block_moments<T: NormElement>(isa: Isa, x: &[T], channels: usize, moments: &mut [f64]) {
    let mut lanes = vec![0.0f32; 3 * channels];
    let (first, rest) = lanes.split_at_mut(channels);
    let (sums, squares) = rest.split_at_mut(channels);
    T::moments(isa, x, first, sums, squares);
    let (pixels, width) = ((x.len() / channels) as f64, channels / (moments.len() / 2));
    for (group, moments) in moments.chunks_exact_mut(2).enumerate() {
        let own = group * width..(group + 1) * width;
        let means = own.clone().map(|c| f64::from(first[c]) + f64::from(sums[c]) / pixels);
        let mean = means.clone().sum::<f64>() / width as f64;
        let within = own.map(|c| f64::from(squares[c]) - f64::from(sums[c]).powi(2) / pixels);
        let between = means.map(|m| (m - mean).powi(2) * pixels);
        moments.copy_from_slice(&[mean, within.sum::<f64>() + between.sum::<f64>()]);
    }
}

/// Combines the moments of blocks (Chan, Golub and LeVeque 1983), in double precision and in order.
fn affine(moments: &[f64], pixels: usize, channels: usize, norm: &Norm) -> Affine {
    let width = channels / norm.groups;
    let mut map = Affine { mean: vec![], scale: vec![], shift: vec![] };
    for group in 0..norm.groups {
        let blocks = || {
            let of = |(i, m): (usize, &[f64])| {
                let n = BLOCK.min(pixels - i * BLOCK) as f64;
                (n, m[2 * group], m[2 * group + 1])
            };
            moments.chunks_exact(2 * norm.groups).enumerate().map(of)
        };
        let mean = blocks().map(|(n, mean, _)| n * mean).sum::<f64>() / pixels as f64;
        let spread = blocks().map(|(n, m, squares)| squares + n * width as f64 * (m - mean).powi(2));
        let spread = spread.sum::<f64>();
        let spread = if spread < 0.0 { 0.0 } else { spread }; // keeps NaN, unlike `max`
        let variance = spread / (pixels * width) as f64;
        let inverse = 1.0 / (variance + norm.eps).sqrt();
        for c in group * width..(group + 1) * width {
            let scale = norm.scale.map_or(1.0, |s| f64::from(s[c])) * inverse;
            let shift = norm.shift.map_or(0.0, |s| f64::from(s[c]));
            let rounded = mean as f32;
            map.mean.push(rounded);
            map.scale.push(scale as f32);
            map.shift.push((shift - (mean - f64::from(rounded)) * scale) as f32);
        }
    }
    map
}

for_each_isa! {
    pub fn moments_f32(x: &[f32], first: &mut [f32], sums: &mut [f32], squares: &mut [f32]) = moments_f32_body
}
for_each_isa! {
    pub fn moments_bf16(x: &[u16], first: &mut [f32], sums: &mut [f32], squares: &mut [f32]) = moments_bf16_body
}

#[inline(always)]
fn moments_f32_body<const FUSED: bool>(x: &[f32], first: &mut [f32], sums: &mut [f32], squares: &mut [f32]) {
    moments_of::<FUSED, f32>(x, first, sums, squares);
}

#[inline(always)]
fn moments_bf16_body<const FUSED: bool>(x: &[u16], first: &mut [f32], sums: &mut [f32], squares: &mut [f32]) {
    moments_of::<FUSED, u16>(x, first, sums, squares);
}

/// First pixel of each channel, and sums of differences to it and of their squares, which are small
/// even if the values are large.
#[inline(always)]
fn moments_of<const FUSED: bool, T: Element>(
    x: &[T],
    first: &mut [f32],
    sums: &mut [f32],
    squares: &mut [f32],
) {
    for (f, v) in first.iter_mut().zip(x) {
        *f = v.read();
    }
    for pixel in x.chunks_exact(first.len()) {
        for (((v, f), sum), square) in pixel.iter().zip(&*first).zip(&mut *sums).zip(&mut *squares) {
            let d = v.read() - f;
            *sum += d;
            *square = fma::<FUSED>(d, d, *square);
        }
    }
}

for_each_isa! {
    pub fn finish_f32(x: &[f32], map: &Affine, silu: bool, out: &mut [f32]) = finish_f32_body
}
for_each_isa! {
    pub fn finish_bf16(x: &[u16], map: &Affine, silu: bool, out: &mut [u16]) = finish_bf16_body
}

#[inline(always)]
fn finish_f32_body<const FUSED: bool>(x: &[f32], map: &Affine, silu: bool, out: &mut [f32]) {
    finish_of::<FUSED, f32>(x, map, silu, out);
}

#[inline(always)]
fn finish_bf16_body<const FUSED: bool>(x: &[u16], map: &Affine, silu: bool, out: &mut [u16]) {
    finish_of::<FUSED, u16>(x, map, silu, out);
}

#[inline(always)]
fn finish_of<const FUSED: bool, T: Element>(x: &[T], map: &Affine, silu: bool, out: &mut [T]) {
    if silu {
        each::<FUSED, T>(x, map, out, |z| z / (1.0 + exp::<FUSED>(-z)));
    } else {
        each::<FUSED, T>(x, map, out, |z| z);
    }
}

#[inline(always)]
fn each<const FUSED: bool, T: Element>(x: &[T], map: &Affine, out: &mut [T], f: impl Fn(f32) -> f32) {
    let channels = map.mean.len();
    for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
        let values = x.iter().zip(&map.mean).zip(&map.scale).zip(&map.shift);
        for (o, (((v, mean), scale), shift)) in out.iter_mut().zip(values) {
            *o = T::write(f(fma::<FUSED>(v.read() - mean, *scale, *shift)));
        }
    }
}
