//! Sampling, encoding and decoding; the choice among all works.

use anyhow::Result;
use ar_model::Decoder;
use base::{Codes, Images, Precision, SampleStream, TensorKind};
use cli::bench::Work;
use sampler::{DecodeMode, Guidance, RandomSource, Sampler, SamplingConfig};
use tch::{Kind, Tensor};
use tokenizer::Tokenizer;

use super::evaluate::evaluate;
use super::job::{Add, Bench};
use super::models::classes;
use super::row::Row;
use super::timing::{Measured, measure};
use super::train::train_steps;

impl Bench<'_> {
    /// Times one work in one precision at all batch sizes.
    pub fn run(self, work: Work, precision: Precision, add: Add) -> Result<()> {
        match work {
            Work::Sample => sample(self, precision, add),
            Work::Encode | Work::Decode => tokenize(self, work, precision, add),
            Work::Train => train_steps(self, precision, add),
            Work::Eval => evaluate(self.args, self.machine, self.device, add),
        }
    }
}

fn sample(bench: Bench, precision: Precision, add: Add) -> Result<()> {
    let Bench { args, subjects, device, .. } = bench;
    let model = subjects.transformer(device, precision, args.gpu)?;
    for &batch in &args.batch_size {
        for &scale in &args.cfg {
            let cond = classes(model.config(), batch, device)?;
            let config = SamplingConfig { guidance: Guidance::constant(scale), ..Default::default() };
            let streams: Vec<SampleStream> =
                (0..batch as u64).map(|index| SampleStream { seed: 0, index }).collect();
            let mut sampler = Sampler::new(&model);
            let measured = measure(device, args.repeat, || {
                let mode = if args.cuda_graph { DecodeMode::CudaGraph } else { DecodeMode::Stepwise };
                sampler.generate(&cond, &config, RandomSource::Streams(&streams), mode)?;
                Ok(())
            })?;
            add(sample_row(bench, precision, &model, batch, scale, measured))?;
        }
    }
    Ok(())
}

fn sample_row(
    bench: Bench,
    precision: Precision,
    model: &Decoder,
    batch: i64,
    scale: f64,
    measured: Measured,
) -> Row {
    let (cost, steps) = (model.config().cost(), model.config().num_tokens as f64);
    let rows = (batch * if scale > 1.0 { 2 } else { 1 }) as f64;
    let element = precision.kind().elt_size_in_bytes() as f64;
    let stored = model.weight_bytes().map_or(cost.weights() * element, |bytes| bytes as f64);
    let cached = match precision {
        _ if bench.args.gpu.int8_cache => 1.0,
        Precision::Fp32 => 4.0,
        _ => 2.0,
    }; // bytes of a number in the cache
    let bytes = cost.decode_bytes(rows, stored, cached);
    let operations = rows * cost.decode_flops();
    Row {
        cfg: Some(scale),
        codes_per_second: Some(batch as f64 * steps / measured.seconds),
        ms_per_step: Some(measured.seconds / steps * 1e3),
        bandwidth_share: Some(bytes / measured.seconds / bench.machine.bandwidth),
        ..Row::new(Work::Sample, precision, batch, measured, operations, bench.machine)
    }
}

fn tokenize(bench: Bench, work: Work, precision: Precision, add: Add) -> Result<()> {
    let Bench { args, subjects, machine, device } = bench;
    let model = subjects.tokenizer(device, precision, args.gpu)?;
    let spec = model.spec().clone();
    let cost = subjects.tokenizer_config().cost(4.0);
    for &batch in &args.batch_size {
        let (operations, measured) = if work == Work::Encode {
            let pixels = Tensor::rand([batch, 3, spec.image_size, spec.image_size], (Kind::Float, device));
            let images = Images::new(pixels * 2.0 - 1.0)?;
            let once = || model.encode(&images).map(drop).map_err(Into::into);
            (cost.encode_flops(), measure(device, args.repeat, once)?)
        } else {
            let shape = [batch, spec.num_tokens];
            let codes = Codes::new(Tensor::randint(spec.codebook_size, shape, (Kind::Int64, device)))?;
            let once = || model.decode(&codes).map(drop).map_err(Into::into);
            (cost.decode_flops(), measure(device, args.repeat, once)?)
        };
        add(Row::new(work, precision, batch, measured, operations * batch as f64, machine))?;
    }
    Ok(())
}
