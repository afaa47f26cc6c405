//! Rows of one cache that enter, step and leave by themselves.

mod flavours;

use ar_model::{
    ArConfig, AutoregressiveModel, Backend, CacheRow, Conditioning, Decoder, GpuFormats, RowwiseModel,
};
use base::Precision;
use base::testing::{max_abs, recipe_integers};
use cuda_kernels::Format;
use flavours::{CLASS, TEXT, both_ways, build, condition, config};
use libtorch_ext::cuda_kernel::CpuEmulator;
use tch::{Device, Kind, Tensor};

fn flavours() -> Vec<ArConfig> {
    vec![
        config("learned", CLASS, "qk_norm: true"),
        config("rope_2d", CLASS, ""),
        config("rope_2d", TEXT, "kv_heads: 2"),
        config("learned", TEXT, ""),
    ]
}

/// Adaptive norms, whose parameters are computed from the conditions.
fn modulated() -> Vec<ArConfig> {
    ["modulation: ada_ln", "modulation: simple_ada_ln"].map(|extra| config("learned", CLASS, extra)).into()
}

fn one(cond: &Conditioning, i: i64) -> Conditioning {
    cond.select(&Tensor::from_slice(&[i]))
}

/// Logits of a sequence's first `steps` codes by prefill and steps, (steps, V), in a batch of
/// copies.
fn alone<M: AutoregressiveModel>(model: &M, cond: &Conditioning, codes: &Tensor, steps: i64) -> Tensor {
    let first = Tensor::zeros([model.batch_multiple()], (Kind::Int64, Device::Cpu));
    let [_, logits] = both_ways(model, &cond.select(&first), &codes.index_select(0, &first));
    logits.get(0).narrow(0, 0, steps)
}

/// A sequence under way: its number, its row of the cache, and its logits so far.
struct Running {
    sequence: i64,
    row: i64,
    logits: Vec<Tensor>,
}

/// Rows enter one, two or three at a time wherever there is room, step together and leave after
/// `steps` codes. Returns the logits of each sequence, (steps, V).
fn continuously<M: RowwiseModel>(model: &M, cond: &Conditioning, codes: &Tensor, steps: i64) -> Vec<Tensor> {
    const ROWS: i64 = 5;
    let total = codes.size()[0];
    let (mut cache, mut next) = (model.new_cache(ROWS), 0);
    let (mut running, mut done): (Vec<Running>, Vec<(i64, Tensor)>) = (vec![], vec![]);
    while (done.len() as i64) < total {
        if !running.is_empty() {
            let t = |r: &Running| r.logits.len() as i64 - 1;
            let at: Vec<CacheRow> = running
                .iter()
                .map(|r| CacheRow { row: r.row, position: model.spec().prefix_len + t(r) })
                .collect();
            let inputs: Vec<Tensor> =
                running.iter().map(|r| codes.get(r.sequence).narrow(0, t(r), 1)).collect();
            let logits = model.decode_rows(&Tensor::stack(&inputs, 0), &at, &mut cache).squeeze_dim(1);
            running.iter_mut().enumerate().for_each(|(i, r)| r.logits.push(logits.get(i as i64)));
        }
        let free = (0..ROWS).rev().filter(|row| running.iter().all(|r| r.row != *row));
        let free: Vec<i64> = free.take((next % 3 + 1) as usize).take((total - next) as usize).collect();
        if !free.is_empty() {
            let entering: Vec<i64> = (next..next + free.len() as i64).collect();
            let cond = cond.select(&Tensor::from_slice(&entering));
            let logits = model.prefill_rows(&cond, &free, &mut cache);
            for (i, (&sequence, &row)) in entering.iter().zip(&free).enumerate() {
                running.push(Running { sequence, row, logits: vec![logits.get(i as i64)] });
            }
            next += free.len() as i64;
        }
        let (left, rest): (Vec<Running>, Vec<Running>) =
            running.into_iter().partition(|r| r.logits.len() as i64 == steps);
        done.extend(left.into_iter().map(|r| (r.sequence, Tensor::stack(&r.logits, 0))));
        running = rest;
    }
    done.sort_by_key(|(sequence, _)| *sequence);
    done.into_iter().map(|(_, logits)| logits).collect()
}

/// Largest difference of the logits of `total` sequences from those alone.
fn difference(model: &Decoder, config: &ArConfig, total: i64, steps: i64) -> f64 {
    let (cond, codes) = (condition(config, total), recipe_integers("codes", 3, &[total, 16], 40));
    let found = continuously(model, &cond, &codes, steps);
    let off = |(i, found): (i64, &Tensor)| {
        max_abs(found, &alone(model, &one(&cond, i), &codes.narrow(0, i, 1), steps))
    };
    (0..).zip(&found).map(off).fold(0.0, f64::max)
}

fn check(model: &Decoder, config: &ArConfig, total: i64, steps: i64, what: &str) {
    assert_eq!(difference(model, config, total, steps), 0.0, "{what} {config:?}");
}

#[test]
fn rows_that_enter_at_different_steps_equal_rows_alone() {
    let threads = tch::get_num_threads();
    for n in [1, 3] {
        tch::set_num_threads(n);
        for config in flavours() {
            let torch = build(&config).into_decoder(Backend::Torch).unwrap();
            check(&torch, &config, 9, 16, &format!("libtorch, {n} threads"));
            for precision in [Precision::Fp32, Precision::Bf16, Precision::Int8] {
                let backend = Backend::default_for(Device::Cpu, precision);
                let kernels = build(&config).into_decoder(backend).unwrap();
                check(&kernels, &config, 9, 16, &format!("kernels in {precision}, {n} threads"));
            }
        }
    }
    tch::set_num_threads(threads);
}

#[test]
fn adaptive_norms_follow_their_rows() {
    for config in modulated() {
        check(&build(&config).into_decoder(Backend::Torch).unwrap(), &config, 5, 6, "libtorch");
        let backend = Backend::default_for(Device::Cpu, Precision::Fp32);
        check(&build(&config).into_decoder(backend).unwrap(), &config, 5, 6, "kernels");
    }
}

/// To the bit where few rows go through the kernels' own products, as codes do; texts of several
/// rows go through libtorch's. The emulator runs threads one after the other, so the model is small
/// and stops early.
#[test]
fn rows_by_a_gpus_kernels_equal_rows_alone() {
    for (position, conditioning, most) in
        [("learned", CLASS, 0.0), ("rope_2d", CLASS, 0.0), ("rope_2d", TEXT, 0.02)]
    {
        let config = config(position, conditioning, "layers: 1");
        let formats = GpuFormats { weights: Format::Bf16, cache: Format::Int8 };
        let backend = Backend::Gpu { formats, launcher: &CpuEmulator };
        let off = difference(&build(&config).into_decoder(backend).unwrap(), &config, 4, 3);
        assert!(off <= most, "{config:?}: {off}");
    }
}

/// A guess of the rest of a sequence leaves no trace: later codes overwrite it.
#[test]
fn chunks_of_single_rows_equal_their_steps() {
    for config in flavours() {
        for backend in [Backend::Torch, Backend::default_for(Device::Cpu, Precision::Fp32)] {
            let model = build(&config).into_decoder(backend).unwrap();
            let (cond, codes) = (condition(&config, 2), recipe_integers("codes", 3, &[2, 16], 40));
            let mut cache = model.new_cache(3);
            let _ = model.prefill_rows(&cond, &[2, 0], &mut cache);
            let at = |row, t| CacheRow { row, position: model.spec().prefix_len + t };
            let wrong = (codes.narrow(1, 0, 9) + 1).remainder(40);
            let _ = model.decode_rows(&wrong, &[at(2, 0), at(0, 0)], &mut cache);
            let expected = alone(&model, &one(&cond, 1), &codes.narrow(0, 1, 1), 16);
            let codes = codes.narrow(0, 1, 1);
            for (from, k) in [(0, 4), (4, 1), (5, 7), (12, 3)] {
                let found = model.decode_rows(&codes.narrow(1, from, k), &[at(0, from)], &mut cache);
                let error = max_abs(&found.get(0), &expected.narrow(0, from + 1, k));
                assert!(error < 1e-5, "{config:?}, codes {from}..{}: {error}", from + k);
            }
        }
    }
}
