//! Stages of an evaluation, alone and together: decode and crop → resize and Inception →
//! statistics. Times are of a batch of sixteen 256×256 JPEGs; floors and shares are in
//! docs/performance.md.

#![allow(missing_docs)] // of a function that a macro makes

use std::path::Path;

use backbones::{FeatureExtractor, Features, InceptionExtractor, InputPath, WeightSource};
use base::ImagesU8;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use data::transform::center_crop;
use eval::{AccumulateSpec, FeatureAccumulator, FrechetReference, Moments, prefetch};
use image::{Rgb, RgbImage};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

const BATCH: u64 = 16;
const BATCHES: u64 = 4;
const SIDE: u32 = 256;

/// Photo-like JPEGs: smooth shapes with some texture.
fn write_images(folder: &Path) {
    for i in 0..BATCH * BATCHES {
        let pixel = |x: u32, y: u32| {
            let (fx, fy) = (f64::from(x) * 0.02 + i as f64, f64::from(y) * 0.03);
            let noise = f64::from((x * 7919 + y * 104_729 + i as u32 * 31) % 23);
            let value = |phase: f64| ((fx + phase).sin() * fy.cos() * 90.0 + 128.0 + noise) as u8;
            Rgb([value(0.0), value(0.7), value(1.9)])
        };
        RgbImage::from_fn(320, 288, pixel).save(folder.join(format!("{i:06}.jpg"))).unwrap();
    }
}

fn read(set: &dyn data::Dataset, indices: &[u64]) -> ImagesU8 {
    let image = |&i: &u64| center_crop(&set.get(i as usize).unwrap().image, SIDE).into_raw();
    let bytes: Vec<Vec<u8>> = indices.par_iter().map(image).collect();
    let side = i64::from(SIDE);
    let nhwc = Tensor::from_slice(&bytes.concat()).view([-1, side, side, 3]);
    ImagesU8::new(nhwc.permute([0, 3, 1, 2]).contiguous()).unwrap()
}

fn collector(network: &InceptionExtractor) -> FeatureAccumulator {
    FeatureAccumulator::new(
        network.id().clone(),
        AccumulateSpec { groups: 1, spatial: true, ..AccumulateSpec::default() },
    )
}

fn batches(n: u64) -> impl Iterator<Item = Vec<u64>> + Send {
    (0..n).map(|b| (b * BATCH..(b + 1) * BATCH).collect())
}

fn pipeline(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    write_images(folder.path());
    let set = data::open(folder.path()).unwrap();
    let random = WeightSource::Random { seed: 11 };
    let network = InceptionExtractor::open(&random, InputPath::Tf, Device::Cpu).unwrap();
    let indices: Vec<u64> = (0..BATCH).collect();
    let images = read(set.as_ref(), &indices);
    let features: Features = network.extract(&images).unwrap();

    let mut group = c.benchmark_group("evaluation, 16 images");
    group.sample_size(10).throughput(Throughput::Elements(BATCH));
    group.bench_function("decode and crop", |b| b.iter(|| read(set.as_ref(), &indices)));
    group.bench_function("resize and Inception", |b| b.iter(|| network.extract(&images).unwrap()));
    group.bench_function("statistics", |b| {
        let mut collector = collector(&network);
        b.iter(|| collector.update(&features, &indices).unwrap());
    });
    group.finish();

    let mut group = c.benchmark_group("evaluation, 64 images");
    group.sample_size(10).throughput(Throughput::Elements(BATCH * BATCHES));
    group.bench_function("one stage after the other", |b| {
        b.iter(|| {
            let mut collector = collector(&network);
            for indices in batches(BATCHES) {
                let images = read(set.as_ref(), &indices);
                collector.update(&network.extract(&images).unwrap(), &indices).unwrap();
            }
        });
    });
    group.bench_function("overlapping", |b| {
        b.iter(|| {
            let mut collector = collector(&network);
            let take = |indices: Vec<u64>, images: ImagesU8| -> backbones::Result<bool> {
                collector.update(&network.extract(&images)?, &indices).unwrap();
                Ok(true)
            };
            prefetch(batches(BATCHES), |indices| read(set.as_ref(), indices), take).unwrap()
        });
    });
    group.finish();
}

/// Distances of 2048 dimensions, of full rank and of fewer rows than dimensions.
fn frechet(c: &mut Criterion) {
    tch::manual_seed(1);
    let rows = |n: i64| Tensor::randn([n, 2048], (Kind::Double, Device::Cpu));
    let statistics = |n: i64| Moments::of(&(rows(n) * 0.5 + 0.1)).unwrap().statistics().unwrap();
    let mut group = c.benchmark_group("Fréchet distance, 2048 dimensions");
    group.sample_size(10);
    for (name, n) in [("full rank", 4096), ("1,000 rows", 1000)] {
        let (a, b) = (statistics(n), statistics(n));
        group.bench_function(name, |bench| {
            bench.iter(|| FrechetReference::new(&a).unwrap().distance(&b).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, pipeline, frechet);
criterion_main!(benches);
