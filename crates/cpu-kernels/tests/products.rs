//! Packed products and attention, compared with naive loops.

use cpu_kernels::attention::{BLOCK, attend_bf16, attend_f32};
use cpu_kernels::{Format, Isa, Matrix, PackedActivations};

const FORMATS: [Format; 3] = [Format::F32, Format::Bf16, Format::Int8];

/// Numbers of a fixed sequence in [-1, 1).
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn product(matrix: &Matrix, x: &[f32], rows: usize) -> Vec<f32> {
    let mut prepared = PackedActivations::new(matrix, rows);
    prepared.set(x);
    let (width, outputs) = (matrix.padded_panel(), matrix.outputs());
    let mut y = vec![0.0; rows * outputs];
    let mut part = vec![f32::NAN; rows * width];
    for panel in 0..matrix.panels() {
        matrix.matmul(panel, &prepared, &mut part);
        let first = panel * matrix.panel();
        let columns = matrix.panel().min(outputs - first);
        for row in 0..rows {
            y[row * outputs + first..][..columns].copy_from_slice(&part[row * width..][..columns]);
        }
    }
    y
}

fn naive(weight: &[f32], x: &[f32], inputs: usize) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    x.chunks(inputs).flat_map(|x| weight.chunks(inputs).map(move |w| dot(w, x))).collect()
}

/// A weight matrix rounded by `format`.
fn as_stored(weight: &[f32], inputs: usize, format: Format) -> Vec<f32> {
    // Half to even, in the upper 16 bits.
    let bf16 = |w: f32| f32::from_bits((w.to_bits() + 0x7FFF + ((w.to_bits() >> 16) & 1)) & 0xFFFF_0000);
    let int8 = |row: &[f32]| -> Vec<f32> {
        let scale = row.iter().fold(0.0f32, |most, w| most.max(w.abs())) / 127.0;
        row.iter().map(|w| (w / scale).round_ties_even() * scale).collect()
    };
    match format {
        Format::F32 => weight.to_vec(),
        Format::Bf16 => weight.iter().map(|&w| bf16(w)).collect(),
        Format::Int8 => weight.chunks_exact(inputs).flat_map(int8).collect(),
    }
}

/// Every format, every instruction set of this machine, shapes with and without remainders, 1 to 13
/// rows.
#[test]
fn products_agree_with_the_obvious_loop() {
    for (outputs, inputs, panel) in [(192, 64, 192), (70, 37, 64), (140, 100, 128), (300, 20, 60), (5, 3, 64)]
    {
        let weight = numbers(1, outputs * inputs);
        for format in FORMATS {
            let stored = as_stored(&weight, inputs, format);
            for isa in Isa::available(format) {
                let matrix = Matrix::pack_for(&weight, inputs, panel, format, isa);
                for rows in [1, 2, 3, 5, 8, 13] {
                    let x = numbers(rows as u64 + 7, rows * inputs);
                    let seen = if format == Format::Bf16 { as_stored(&x, inputs, format) } else { x.clone() };
                    let expected = naive(&stored, &seen, inputs);
                    for (y, e) in product(&matrix, &x, rows).iter().zip(expected) {
                        // Inputs of int8 products are whole multiples of 1/32767 of the row's
                        // largest.
                        let bound = if format == Format::Int8 { 2e-5 * inputs as f64 } else { 1e-5 };
                        let off = (f64::from(*y) - e).abs();
                        assert!(off < bound, "{format:?} {isa:?} {outputs}×{inputs}, {rows} rows: {y} {e}");
                    }
                }
            }
        }
    }
}

/// Integer sums are exact, so that int8 gives the same bits on every processor.
#[test]
fn int8_products_are_the_same_on_every_processor() {
    let (weight, x) = (numbers(3, 96 * 300), numbers(4, 5 * 300));
    let results = Isa::available(Format::Int8)
        .into_iter()
        .map(|isa| product(&Matrix::pack_for(&weight, 300, 64, Format::Int8, isa), &x, 5));
    let results: Vec<Vec<f32>> = results.collect();
    assert!(results.windows(2).all(|w| w[0] == w[1]));
}

/// Largest integers, in sums longer than 32 bits hold.
#[test]
fn long_sums_of_int8_do_not_overflow() {
    for isa in Isa::available(Format::Int8) {
        let matrix = Matrix::pack_for(&[1.0; 3 * 4000], 4000, 64, Format::Int8, isa);
        for y in product(&matrix, &[-2.0; 4 * 4000], 4) {
            assert!((y + 8000.0).abs() < 0.01, "{isa:?}: {y}");
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let (weight, x) = (numbers(5, 128 * 256), numbers(6, 16 * 256));
    for format in FORMATS {
        let matrix = Matrix::pack(&weight, 256, 64, format);
        let together = product(&matrix, &x, 16);
        for row in 0..16 {
            let alone = product(&matrix, &x[row * 256..][..256], 1);
            assert_eq!(alone, together[row * 128..][..128], "{format:?}, row {row}");
        }
    }
}

#[test]
fn zero_weights_and_inputs_give_zero() {
    for format in FORMATS {
        let matrix = Matrix::pack(&[0.0; 64 * 8], 8, 64, format);
        assert!(product(&matrix, &numbers(1, 8), 1).iter().all(|y| *y == 0.0), "{format:?}");
        let matrix = Matrix::pack(&numbers(2, 64 * 8), 8, 64, format);
        assert!(product(&matrix, &[0.0; 8], 1).iter().all(|y| *y == 0.0), "{format:?}");
    }
}

#[test]
fn attention_agrees_with_the_obvious_loop() {
    let half = |x: f32| (x.to_bits() >> 16) as u16;
    for (width, length) in [(64, 37), (100, 16), (20, 1)] {
        let padded = width + (16 - width % 16) % 16;
        let positions = 48;
        let query = numbers(1, width);
        let whole =
            |v: Vec<f32>| v.iter().map(|x| f32::from_bits(x.to_bits() & 0xFFFF_0000)).collect::<Vec<_>>();
        let (keys, values) = (whole(numbers(2, positions * width)), whole(numbers(3, positions * width)));
        let hidden = [false, true, true];
        let hidden = &hidden[..3.min(length - 1)];
        let mut packed_keys = vec![0.0; positions * width];
        let mut packed_values = vec![0.0; positions * padded];
        for p in 0..positions {
            for c in 0..width {
                packed_keys[p / BLOCK * BLOCK * width + c * BLOCK + p % BLOCK] = keys[p * width + c];
                packed_values[p * padded + c] = values[p * width + c];
            }
        }
        let seen: Vec<usize> = (0..length).filter(|p| !hidden.get(*p).copied().unwrap_or(false)).collect();
        let score = |p: &usize| -> f64 {
            let key = &keys[p * width..][..width];
            key.iter().zip(&query).map(|(a, b)| f64::from(a * b)).sum::<f64>() / (width as f64).sqrt()
        };
        let weights: Vec<f64> = seen.iter().map(|p| score(p).exp()).collect();
        let total: f64 = weights.iter().sum();
        for isa in Isa::available(Format::F32) {
            let mut scores = vec![0.0; positions];
            let mut out = [vec![0.0; padded], vec![0.0; padded]];
            let [single, bf16] = &mut out;
            attend_f32(isa, &query, &packed_keys, &packed_values, length, hidden, &mut scores, single);
            let (k, v): (Vec<u16>, Vec<u16>) = (
                packed_keys.iter().map(|x| half(*x)).collect(),
                packed_values.iter().map(|x| half(*x)).collect(),
            );
            attend_bf16(isa, &query, &k, &v, length, hidden, &mut scores, bf16);
            for c in 0..width {
                let value = |p: &usize| f64::from(values[p * width + c]);
                let expected: f64 = seen.iter().zip(&weights).map(|(p, w)| w * value(p)).sum::<f64>() / total;
                for out in &out {
                    assert!((f64::from(out[c]) - expected).abs() < 1e-6, "{isa:?} {width} {length}");
                }
            }
        }
    }
}
