//! Group norm, compared with a naive loop in double precision.

use cpu_kernels::{Format, Isa, Norm, NormElement, ThreadPool, group_norm};

fn numbers(seed: u64, n: usize, mean: f32, spread: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * spread + mean
    };
    (0..n).map(|_| next()).collect()
}

fn naive(x: &[f32], channels: usize, norm: &Norm) -> Vec<f64> {
    let width = channels / norm.groups;
    let group = |i: usize| i % channels / width;
    let stats: Vec<(f64, f64)> = (0..norm.groups)
        .map(|g| {
            let own = || x.iter().enumerate().filter(|(i, _)| group(*i) == g).map(|(_, v)| f64::from(*v));
            let n = own().count() as f64;
            let mean = own().sum::<f64>() / n;
            (mean, own().map(|v| (v - mean).powi(2)).sum::<f64>() / n)
        })
        .collect();
    let value = |(i, v): (usize, &f32)| {
        let ((mean, variance), c) = (stats[group(i)], i % channels);
        let scale = norm.scale.map_or(1.0, |s| f64::from(s[c]));
        let shift = norm.shift.map_or(0.0, |s| f64::from(s[c]));
        let z = (f64::from(*v) - mean) / (variance + norm.eps).sqrt() * scale + shift;
        if norm.silu { z / (1.0 + (-z).exp()) } else { z }
    };
    x.iter().enumerate().map(value).collect()
}

fn run<T: NormElement + Default>(threads: usize, isa: Isa, x: &[T], channels: usize, norm: &Norm) -> Vec<T> {
    let mut out = vec![T::default(); x.len()];
    group_norm(&ThreadPool::new(threads), isa, x, channels, norm, &mut out);
    out
}

/// Sizes with and without remainders, one and many channels to a group, means far from zero.
#[test]
fn it_agrees_with_double_precision_on_every_instruction_set() {
    for (pixels, channels, groups) in [(1, 32, 32), (7, 6, 2), (300, 40, 8), (1025, 128, 32), (129, 70, 1)] {
        for (mean, bound) in [(0.0, 2e-6), (100.0, 2e-6), (-3000.0, 2e-6)] {
            let x = numbers(pixels as u64, pixels * channels, mean, 0.5);
            let (scale, shift) = (numbers(2, channels, 1.0, 0.5), numbers(3, channels, 0.0, 1.0));
            for (affine, silu) in [(true, true), (true, false), (false, true)] {
                let norm = Norm {
                    groups,
                    eps: 1e-6,
                    scale: affine.then_some(&scale),
                    shift: affine.then_some(&shift),
                    silu,
                };
                let expected = naive(&x, channels, &norm);
                for isa in Isa::available(Format::F32) {
                    for (y, e) in run(1, isa, &x, channels, &norm).iter().zip(&expected) {
                        let off = (f64::from(*y) - e).abs() / (1.0 + e.abs());
                        assert!(off < bound, "{isa:?} {pixels} {channels} {groups} {mean}: {y} {e}");
                    }
                }
            }
        }
    }
}

#[test]
fn bf16_differs_from_double_precision_by_its_own_rounding() {
    let bits = |v: f32| (v.to_bits() >> 16) as u16;
    let x: Vec<u16> = numbers(1, 700 * 64, 3.0, 0.5).into_iter().map(bits).collect();
    let wide: Vec<f32> = x.iter().map(|v| f32::from_bits(u32::from(*v) << 16)).collect();
    let norm = Norm { groups: 16, eps: 1e-6, scale: None, shift: None, silu: true };
    let expected = naive(&wide, 64, &norm);
    for isa in Isa::available(Format::F32) {
        for (y, e) in run(2, isa, &x, 64, &norm).iter().zip(&expected) {
            let off = (f64::from(f32::from_bits(u32::from(*y) << 16)) - e).abs();
            assert!(off <= e.abs() / 255.0 + 1e-6, "{isa:?}: {off} from {e}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let x = numbers(9, 3001 * 64, 5.0, 1.0);
    let norm = Norm { groups: 32, eps: 1e-6, scale: None, shift: None, silu: true };
    let isa = Isa::best(Format::F32);
    let alone = run(1, isa, &x, 64, &norm);
    assert!((2..5).all(|threads| run(threads, isa, &x, 64, &norm) == alone));
}

#[test]
fn what_is_no_number_stays_visible() {
    let norm = Norm { groups: 1, eps: 1e-6, scale: None, shift: None, silu: true };
    for isa in Isa::available(Format::F32) {
        assert!(run(1, isa, &[f32::NAN, 1.0], 1, &norm).iter().all(|y| y.is_nan()));
        assert!(run(1, isa, &[0x7FC0u16, 0], 1, &norm).iter().all(|y| *y == 0x7FC0));
    }
}
