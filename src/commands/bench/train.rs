//! Training steps of a transformer.

use anyhow::Result;
use ar_model::{ArConfig, Conditioning, Gpt};
use base::{Mode, Precision, TensorKind, random};
use cli::bench::{BenchArgs, Work};
use libtorch_ext::side_by_side;
use tch::{Device, Kind, Tensor};
use train::losses::language::chunked_cross_entropy;
use train::optim::{AdamW, AdamWConfig, Decay, clip_grad_norm, global_norm};

use super::job::{Add, Bench};
use super::models::{classes, random_transformer};
use super::row::Row;
use super::timing::measure;
use crate::error::UserError;

/// Forward, backward, clipping and AdamW of the transformer, from the initial weights of training.
pub fn train_steps(bench: Bench, precision: Precision, add: Add) -> Result<()> {
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
