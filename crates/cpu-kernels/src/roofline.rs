//! The hardware's limits, measured: memory bandwidth and arithmetic throughput, the roofline of
//! decoding.

use std::time::Instant;

use crate::isa::{Format, Isa, for_each_isa};
use crate::matmul::{Matrix, PackedActivations};
use crate::memory::Aligned;
use crate::thread_pool::ThreadPool;

/// Bytes; well beyond any cache.
const BUFFER: usize = 256 << 20;
const TRIES: usize = 5;

/// Memory bandwidth in bytes per second, over long contiguous reads; the best of a few tries.
pub fn bandwidth(pool: &ThreadPool) -> f64 {
    let mut buffer = Aligned::<f32>::zeros(BUFFER / 4);
    buffer.as_mut_slice().fill(1.0); // untouched pages all map to one zero page
    let (buffer, isa) = (buffer.as_slice(), Isa::best(Format::F32));
    BUFFER as f64
        / fastest(|| {
            pool.run(|m| {
                std::hint::black_box(sum(isa, &buffer[m.chunk(buffer.len())]));
            })
        })
}

/// Operations per second (two for each weight and row) of matrix products with weights in `format`
/// that fit the first-level caches; the best of a few tries.
pub fn arithmetic(pool: &ThreadPool, format: Format) -> f64 {
    const ROWS: usize = 24;
    const INPUTS: usize = 256;
    const OUTPUTS: usize = 64;
    const TIMES: usize = 2000;
    let weight: Vec<f32> = (0..INPUTS * OUTPUTS).map(|i| (i % 17) as f32 - 8.0).collect();
    let matrix = Matrix::pack(&weight, INPUTS, OUTPUTS, format);
    let x: Vec<f32> = (0..INPUTS * ROWS).map(|i| (i % 13) as f32 - 6.0).collect();
    let mut rows = PackedActivations::new(&matrix, ROWS);
    rows.set(&x);
    let seconds = fastest(|| {
        pool.run(|_| {
            let mut out = vec![0.0; ROWS * OUTPUTS];
            for _ in 0..TIMES {
                matrix.matmul(0, &rows, std::hint::black_box(&mut out));
            }
        });
    });
    (2 * ROWS * INPUTS * OUTPUTS * TIMES * pool.size()) as f64 / seconds
}

fn fastest(mut work: impl FnMut()) -> f64 {
    let mut once = || {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64()
    };
    (0..TRIES).map(|_| once()).fold(f64::INFINITY, f64::min)
}

for_each_isa! {
    /// Sum of all numbers, in 64 lanes.
    pub fn sum(x: &[f32]) -> f32 = sum_body
}

#[inline(always)]
fn sum_body<const FUSED: bool>(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 64];
    for chunk in x.as_chunks::<64>().0 {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v;
        }
    }
    lanes.iter().sum()
}
