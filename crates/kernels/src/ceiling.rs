//! What this machine can do at best, measured: the ceilings that decoding is judged by.

use std::time::Instant;

use crate::isa::{Format, Isa, for_each_isa};
use crate::matmul::{Matrix, Rows};
use crate::memory::Aligned;
use crate::team::Team;

/// Well beyond any cache.
const BUFFER: usize = 256 << 20;
const TRIES: usize = 5;

/// Bytes a second that the team reads from memory, in long runs; the best of a few tries.
pub fn bandwidth(team: &Team) -> f64 {
    let mut buffer = Aligned::<f32>::zeros(BUFFER / 4);
    buffer.as_mut_slice().fill(1.0); // pages that were never written are all the same one
    let (buffer, isa) = (buffer.as_slice(), Isa::best(Format::F32));
    BUFFER as f64
        / fastest(|| {
            team.run(|m| {
                std::hint::black_box(sum(isa, &buffer[m.share(buffer.len())]));
            })
        })
}

/// Operations a second (two for each weight and row) of products with `format` whose weights stay in the first
/// caches; the best of a few tries.
pub fn arithmetic(team: &Team, format: Format) -> f64 {
    const ROWS: usize = 24;
    const INPUTS: usize = 256;
    const OUTPUTS: usize = 64;
    const TIMES: usize = 2000;
    let weight: Vec<f32> = (0..INPUTS * OUTPUTS).map(|i| (i % 17) as f32 - 8.0).collect();
    let matrix = Matrix::pack(&weight, INPUTS, OUTPUTS, format);
    let x: Vec<f32> = (0..INPUTS * ROWS).map(|i| (i % 13) as f32 - 6.0).collect();
    let mut rows = Rows::of(&matrix, ROWS);
    rows.set(&x);
    let seconds = fastest(|| {
        team.run(|_| {
            let mut out = vec![0.0; ROWS * OUTPUTS];
            for _ in 0..TIMES {
                matrix.product(0, &rows, std::hint::black_box(&mut out));
            }
        });
    });
    (2 * ROWS * INPUTS * OUTPUTS * TIMES * team.size()) as f64 / seconds
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
    /// The sum of all numbers, in 64 lanes.
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
