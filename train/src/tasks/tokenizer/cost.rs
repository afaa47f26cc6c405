//! Cost of a tokenizer's training. The backward pass costs twice the forward pass; the teacher runs
//! forward only, LPIPS on both images and back to one, the discriminator twice for the generator
//! and six times for itself.

use base::cost::FlopCounter;
use base::{Build, Vars};
use tch::{Device, Kind};
use tokenizer::{Model, TokenizerConfig};

use super::losses::{Adversarial, Perceptual, Semantic, Teacher, TokenizerLosses};
use crate::Result;
use crate::cost::{RunCost, element_bytes, frozen, states};
use crate::recipe::Optimization;

/// Cost of training this model with these losses.
pub(super) fn cost(
    model: &TokenizerConfig,
    losses: &TokenizerLosses,
    optimization: &Optimization,
) -> Result<RunCost> {
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
    Model::new(&vars.root(), model)?;
    let bytes = element_bytes(optimization.precision);
    let network = model.cost(bytes);
    let mut run = RunCost::new(vars.num_parameters() as f64, optimization);
    run.flops_per_image = network.training_flops();
    run.activations_per_image = network.activation_bytes();
    if bytes < 4.0 {
        run.workspace = bytes * run.parameters;
    }
    let size = model.image_size();
    if let Some(perceptual) = &losses.perceptual {
        add_perceptual(&mut run, perceptual, size, bytes)?;
    }
    if let Some(semantic) = &losses.semantic {
        add_teacher(&mut run, semantic, size, bytes)?;
    }
    if let Some(adversarial) = &losses.adversarial {
        add_discriminator(&mut run, adversarial, size, optimization)?;
    }
    if losses.auxiliary.as_ref().is_some_and(|a| a.skip_quantizer) {
        run.uncounted.push("the second reconstruction of the first steps (`losses.auxiliary.direct`)");
    }
    Ok(run)
}

fn add_perceptual(run: &mut RunCost, perceptual: &Perceptual, size: i64, bytes: f64) -> Result<()> {
    let counter = match perceptual {
        Perceptual::Lpips { .. } => {
            run.states.push(("VGG16", 4.0 * 14.7e6));
            frozen::vgg16(size, 4.0)
        }
        Perceptual::Features { network, .. } => {
            frozen::stages(&frozen::read_cnn_stages(network)?, size, bytes)
        }
        Perceptual::EfficientnetLite { distance, .. } => {
            distance.check()?;
            run.states.push(("EfficientNet-Lite", bytes * distance.size.parameters()));
            let (flops, values) = distance.cost(size);
            let mut counter = FlopCounter::new(bytes);
            (counter.flops, counter.activation_bytes) = (flops, bytes * values);
            counter
        }
    };
    run.flops_per_image += 3.0 * counter.flops;
    run.activations_per_image += counter.activation_bytes;
    Ok(())
}

fn add_teacher(run: &mut RunCost, semantic: &Semantic, size: i64, bytes: f64) -> Result<()> {
    let (flops, parameters) = match &semantic.teacher {
        Teacher::Dinov2 { size, .. } => frozen::dinov2(*size),
        Teacher::EfficientnetLite { size: network, block, upsample, .. } => {
            (network.cost(size * upsample, *block).0, network.parameters())
        }
        Teacher::Vision => (0.0, 0.0),
        Teacher::Features { network, stage } => {
            let stages = frozen::read_cnn_stages(network)?;
            let read = &stages[..stages.len().min(stage + 1)];
            (frozen::stages(read, size, bytes).flops, 0.0)
        }
    };
    run.flops_per_image += flops;
    run.states.push(("teacher", 4.0 * parameters));
    Ok(())
}

fn add_discriminator(
    run: &mut RunCost,
    adversarial: &Adversarial,
    size: i64,
    optimization: &Optimization,
) -> Result<()> {
    let bytes = element_bytes(optimization.precision);
    let counter = adversarial.discriminator.cost(size, bytes);
    run.flops_per_image += 8.0 * counter.flops;
    run.activations_per_image += counter.activation_bytes;
    let parameters = adversarial.discriminator.num_parameters(size)?;
    let no_average = Optimization { ema: None, ..optimization.clone() };
    let held = states(parameters, &no_average).iter().map(|s| s.1).sum();
    run.states.push(("discriminator and its optimizer", held));
    run.states.extend(adversarial.discriminator.frozen_state(bytes));
    Ok(())
}
