//! `cargo bench -p kernels`: products, attention and sampling of a code at the sizes of GPT-B;
//! layers over a tokenizer's maps.
#![allow(missing_docs)] // criterion's macros make public functions

use cpu_kernels::attention::{attend_bf16, attend_f32};
use cpu_kernels::sample::{inverse_cdf_sample, top_k_mask};
use cpu_kernels::{
    ConvElement, Format, Isa, Map, Matrix, Norm, NormElement, PackedActivations, ThreadPool, Winograd,
    group_norm,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const WIDTH: usize = 768;
const VOCABULARY: usize = 16_384;

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1000) as f32 / 1000.0 - 0.5).collect()
}

/// The output layer, larger than the second-level cache, on one thread; the throughput is of
/// weights.
fn products(c: &mut Criterion) {
    let weight = numbers(VOCABULARY * WIDTH);
    let mut group = c.benchmark_group("product 16384×768");
    for format in [Format::F32, Format::Bf16, Format::Int8] {
        for isa in Isa::available(format) {
            let matrix = Matrix::pack_for(&weight, WIDTH, 64, format, isa);
            group.throughput(Throughput::Bytes(matrix.bytes() as u64));
            for rows in [1, 2, 8, 32] {
                let mut x = PackedActivations::new(&matrix, rows);
                x.set(&numbers(rows * WIDTH));
                let mut out = vec![0.0; rows * 64];
                let all = |out: &mut Vec<f32>| (0..matrix.panels()).for_each(|s| matrix.matmul(s, &x, out));
                let name = BenchmarkId::new(format!("{format:?} {isa:?}"), format!("{rows} rows"));
                group.bench_function(name, |b| b.iter(|| all(&mut out)));
            }
        }
    }
    group.finish();
}

fn attention(c: &mut Criterion) {
    let isa = Isa::best(Format::F32);
    let (query, keys) = (numbers(64), numbers(64 * 256));
    let half: Vec<u16> = keys.iter().map(|x| (x.to_bits() >> 16) as u16).collect();
    let (mut scores, mut out) = (vec![0.0; 256], vec![0.0; 64]);
    let mut group = c.benchmark_group("attention of a head of 64 over 256 positions");
    group.bench_function("fp32 cache", |b| {
        b.iter(|| attend_f32(isa, &query, &keys, &keys, 256, &[], &mut scores, &mut out));
    });
    group.bench_function("bf16 cache", |b| {
        b.iter(|| attend_bf16(isa, &query, &half, &half, 256, &[], &mut scores, &mut out));
    });
    group.finish();
}

fn sample(c: &mut Criterion) {
    let isa = Isa::best(Format::F32);
    let logits = numbers(VOCABULARY);
    let mut group = c.benchmark_group("a code of 16384");
    for k in [0, 250, 2000] {
        group.bench_function(BenchmarkId::new("top-k", k), |b| {
            b.iter(|| {
                let mut row = logits.clone();
                top_k_mask(&mut row, k);
                inverse_cdf_sample(isa, &row, 0.5)
            });
        });
    }
    group.finish();
}

/// Layers over a 64×64 map of 256 channels, on one thread. A convolution counts as the nine
/// products that it replaces.
fn maps(c: &mut Criterion) {
    map_layers(c, "fp32", &numbers(64 * 64 * 256));
    map_layers(c, "bf16", &vec![0x3F00u16; 64 * 64 * 256]);
}

fn map_layers<T: NormElement + ConvElement + Default>(c: &mut Criterion, kind: &str, x: &[T]) {
    let (pool, isa) = (ThreadPool::new(1), Isa::best(Format::F32));
    let bias = numbers(256);
    let packed = Winograd::new(&numbers(256 * 256 * 9), &bias, isa);
    let norm = Norm { groups: 32, eps: 1e-6, scale: Some(&bias), shift: Some(&bias), silu: true };
    let mut out = vec![T::default(); x.len()];
    let mut group = c.benchmark_group("a map of 64×64×256");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(size_of_val(x) as u64));
    group.bench_function(BenchmarkId::new("group norm and SiLU", kind), |b| {
        b.iter(|| group_norm(&pool, isa, x, 256, &norm, &mut out));
    });
    group.throughput(Throughput::Elements(2 * 9 * 256 * x.len() as u64));
    group.bench_function(BenchmarkId::new("3×3 convolution", kind), |b| {
        b.iter(|| packed.run(&pool, &Map { x, width: 64, residual: None }, &mut out));
    });
    group.finish();
}

criterion_group!(benches, products, attention, sample, maps);
criterion_main!(benches);
