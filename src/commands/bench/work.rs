//! The works themselves.

use anyhow::Result;
use ar_model::{ArConfig, Conditioning, Decoder, Gpt};
use base::{Codes, Images, Mode, Precision, SampleStream, TensorKind, random};
use cli::bench::{BenchArgs, Work};
use libtorch_ext::side_by_side;
use sampler::{DecodeMode, Guidance, RandomSource, Sampler, SamplingConfig};
use tch::{Device, Kind, Tensor};
use tokenizer::Tokenizer;
use train::losses::language::chunked_cross_entropy;
use train::optim::{AdamW, AdamWConfig, Decay, clip_grad_norm, global_norm};

use super::evaluate::evaluate;
use super::machine::Machine;
use super::models::{Subjects, random_transformer};
use super::report::Row;
use super::timing::{Measured, measure};
use crate::error::UserError;

/// How works are timed, and on what.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// Batch sizes, guidance scales, repeats.
    pub args: &'a BenchArgs,
    /// The networks.
    pub subjects: &'a Subjects,
    /// What the results are set beside.
    pub machine: &'a Machine,
    /// Where they run.
    pub device: Device,
}

/// Where finished rows go.
pub type Add<'a> = &'a mut dyn FnMut(Row) -> Result<()>;

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

fn classes(config: &ArConfig, batch: i64, device: Device) -> Result<Conditioning> {
    let ar_model::ConditioningConfig::Class { num_classes, .. } = config.conditioning else {
        return Err(UserError::new("only class-conditional transformers are timed").into());
    };
    let classes = Tensor::arange(batch, (Kind::Int64, device)).remainder(num_classes);
    Ok(Conditioning::Class(classes))
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

/// Forward, backward, clipping and AdamW of the transformer, from the weights that training starts with.
fn train_steps(bench: Bench, precision: Precision, add: Add) -> Result<()> {
    let Bench { args, subjects, machine, device } = bench;
    libtorch_ext::runtime::keep_freed_memory(); // as training verbs do
    let config = subjects.ar_config();
    let (mut model, vars) = random_transformer(config, device, Kind::Float)?;
    model.set_compute(precision.kind());
    vars.set_requires_grad(true);
    let parameters: Vec<Tensor> = vars.parameters().into_iter().map(|v| v.tensor).collect();
    let adamw = AdamWConfig { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.05, decay: Decay::Matrices };
    let mut optimizer = AdamW::from_config(vars.parameters(), &adamw);
    for (batch, workers) in args.batch_size.iter().flat_map(|b| args.workers.iter().map(|w| (*b, *w))) {
        let micro = batch / workers;
        let cond = classes(config, micro, device)?;
        let codes = Tensor::randint(config.vocab_size, [micro, config.num_tokens], (Kind::Int64, device));
        let measured = measure(device, args.repeat, || {
            let mut sum: Vec<Tensor> = vec![];
            let work = |shared: &(&Gpt, &Conditioning, &Tensor, &[Tensor]), _, seed| {
                let &(model, cond, codes, parameters) = shared;
                let loss = || {
                    let (pass, x) = model.teacher_forced(cond, codes, Mode::Train);
                    let hidden = pass.head_input(&pass.layers(x, pass.num_layers()));
                    chunked_cross_entropy(&hidden, model.output_weight(), codes, None) / workers as f64
                };
                Tensor::run_backward(&[random::seeded(device, seed, loss)], parameters, false, false)
            };
            let shared = (&model, &cond, &codes, parameters.as_slice());
            side_by_side(&shared, workers as usize, (0..workers).collect(), work, |grads| {
                match sum.is_empty() {
                    true => sum = grads,
                    false => sum.iter_mut().zip(grads).for_each(|(sum, grad)| *sum += grad),
                }
            });
            let norm = global_norm(&sum).double_value(&[]);
            clip_grad_norm(&mut sum, norm, 1.0);
            optimizer.step(&sum, 1e-4);
            Ok(())
        })?;
        let operations = training_flops(config, batch);
        let row = Row::new(Work::Train, precision, batch, measured, operations, machine);
        add(Row {
            workers: Some(workers),
            codes_per_second: Some((batch * config.num_tokens) as f64 / measured.seconds),
            ms_per_step: Some(measured.seconds * 1e3),
            ..row
        })?;
    }
    Ok(())
}

/// Operations of a training step.
fn training_flops(config: &ArConfig, batch: i64) -> f64 {
    batch as f64 * config.cost().training_flops(false)
}

/// Refuses batches that are not as many equal parts as there are workers, and workers on a GPU.
pub fn check_workers(args: &BenchArgs, device: Device) -> Result<()> {
    for (&images, &workers) in args.batch_size.iter().flat_map(|b| args.workers.iter().map(move |w| (b, w))) {
        if workers > 1 && device != Device::Cpu {
            return Err(UserError::new("--workers: micro-batches go side by side on the CPU only").into());
        }
        if images % workers != 0 {
            return Err(
                UserError::new(format!("--workers: {images} images are not {workers} equal parts")).into()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::config::Document;
    use train::Recipe as _;
    use train::tasks::ArRecipe;

    /// The estimate of `--plan`, which MFU uses too.
    #[test]
    fn a_training_step_has_the_flops_of_its_recipe() {
        let text = include_str!("../../../configs/train/llamagen-b-256.yaml");
        let recipe: ArRecipe = Document::parse("test", text).unwrap().typed().unwrap();
        let run = recipe.cost().unwrap();
        assert_eq!(training_flops(&recipe.model, 8), 8.0 * run.flops_per_image);
    }
}
