//! Costs of a tokenizer's training. Backward counts twice the forward pass; the teacher runs forward only, LPIPS on both
//! images and back to one, the discriminator twice for the generator and six times for itself.

use base::{Build, Vars};
use tch::{Device, Kind};
use tokenizer::{CnnConfig, GigaTokConfig, GridLayers, Latent, Model, TokenizerConfig, Upsample};

use super::work::Work;
use super::{Plan, adversary, states, width};
use crate::Result;
use crate::discriminator::DiscriminatorConfig;
use crate::recipe::Optimization;
use crate::tasks::{FeaturesModel, Perceptual, Teacher, TokenizerRecipe};

/// A run with this recipe.
pub(crate) fn tokenizer(recipe: &TokenizerRecipe) -> Result<Plan> {
    let optimization = &recipe.optimization;
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
    Model::new(&vars.root(), &recipe.model)?;
    let kind = width(optimization.precision);
    let model = forward(&recipe.model, kind);
    let mut plan = Plan::new(vars.num_parameters() as f64, optimization);
    plan.flops_per_image = 3.0 * model.flops;
    if let TokenizerConfig::Gigatok(GigaTokConfig { vision: Some(vision), image_size, .. }) = &recipe.model {
        plan.flops_per_image += vision.flops(*image_size);
    }
    plan.activations_per_image = model.kept;
    if kind < 4.0 {
        plan.working = kind * plan.parameters;
    }
    perceptual(&mut plan, recipe, kind)?;
    if let Some(semantic) = &recipe.losses.semantic {
        let side = recipe.model.image_size();
        let (flops, parameters) = match &semantic.teacher {
            Teacher::Dinov2 { size, .. } => adversary::dinov2(*size),
            Teacher::EfficientnetLite { size, block, upsample, .. } => {
                (size.cost(side * upsample, *block).0, size.parameters())
            }
            Teacher::Vision => (0.0, 0.0),
            Teacher::Features { network, stage } => {
                let stages = feature_stages(network)?;
                let read = &stages[..stages.len().min(stage + 1)];
                (adversary::stages(read, side, kind).flops, 0.0)
            }
        };
        plan.flops_per_image += flops;
        plan.states.push(("teacher", 4.0 * parameters));
    }
    if let Some(adversarial) = &recipe.losses.adversarial {
        let size = recipe.model.image_size();
        let work = adversary::forward(&adversarial.discriminator, size, kind);
        plan.flops_per_image += 8.0 * work.flops;
        plan.activations_per_image += work.kept;
        let parameters = adversary::parameters(&adversarial.discriminator, size)?;
        let no_average = Optimization { ema: None, ..optimization.clone() };
        let bytes = states(parameters, &no_average).iter().map(|s| s.1).sum();
        plan.states.push(("discriminator and its optimizer", bytes));
        match &adversarial.discriminator {
            DiscriminatorConfig::Dino(_) => plan.states.push(("DINO", 4.0 * 21.7e6)),
            DiscriminatorConfig::Projected(c) => {
                plan.states.push(("the discriminator's EfficientNet-Lite", kind * c.size.parameters()));
            }
            DiscriminatorConfig::Patchgan(_) | DiscriminatorConfig::Stylegan(_) => {}
        }
    }
    if recipe.losses.auxiliary.as_ref().is_some_and(|a| a.direct) {
        plan.left_out.push("the second reconstruction of the first steps (`losses.auxiliary.direct`)");
    }
    Ok(plan)
}

/// A feature network in training.
pub(crate) fn features(model: &FeaturesModel, optimization: &Optimization) -> Plan {
    let kind = width(optimization.precision);
    let stages: Vec<(i64, usize)> = model.widths.iter().map(|&w| (w, 2)).collect();
    let work = adversary::stages(&stages, model.image_size, kind);
    let mut inputs = 3;
    let mut parameters = 0.0;
    for &w in &model.widths {
        parameters += (9 * (inputs + w) * w + 4 * w) as f64;
        inputs = w;
    }
    let mut plan = Plan::new(parameters, optimization);
    plan.flops_per_image = 3.0 * work.flops;
    plan.activations_per_image = 3.0 * work.kept; // each convolution's output goes through a norm and a ReLU
    plan.left_out.push("the classifier at its end");
    plan
}

fn perceptual(plan: &mut Plan, recipe: &TokenizerRecipe, kind: f64) -> Result<()> {
    let size = recipe.model.image_size();
    let work = match &recipe.losses.perceptual {
        None => return Ok(()),
        Some(Perceptual::Lpips { .. }) => {
            plan.states.push(("VGG16", 4.0 * 14.7e6));
            adversary::vgg16(size, 4.0)
        }
        Some(Perceptual::Features { network, .. }) => {
            adversary::stages(&feature_stages(network)?, size, kind)
        }
        Some(Perceptual::EfficientnetLite { distance, .. }) => {
            distance.check()?;
            plan.states.push(("EfficientNet-Lite", kind * distance.size.parameters()));
            let (flops, values) = distance.cost(size);
            let mut work = Work::new(kind);
            (work.flops, work.kept) = (flops, kind * values);
            work
        }
    };
    plan.flops_per_image += 3.0 * work.flops;
    plan.activations_per_image += work.kept;
    Ok(())
}

fn feature_stages(network: &std::path::Path) -> Result<Vec<(i64, usize)>> {
    let config = backbones::FeatureCnnConfig::read(&network.join(weights::CONFIG_FILE))?;
    Ok(config.widths.iter().map(|&w| (w, 2)).collect())
}

/// Encode and decode.
fn forward(config: &TokenizerConfig, kind: f64) -> Work {
    let mut work = Work::new(kind);
    let cnn = config.cnn();
    let quantizer = config.quantizer().settings();
    let grid = config.image_size() / cnn.patch();
    encoder(&mut work, cnn, config.image_size());
    let tokens = match config {
        TokenizerConfig::Gigatok(c) => transformers(&mut work, c, grid),
        TokenizerConfig::LlamagenVq(_) => grid * grid,
    };
    // The search compares in fp32.
    work.linear(cnn.z_channels, quantizer.code_dim(), tokens);
    work.flops += quantizer.encode_flops() * tokens as f64;
    work.kept += quantizer.activation_bytes() * tokens as f64;
    work.linear(quantizer.code_dim(), cnn.z_channels, tokens);
    decoder(&mut work, cnn, config.image_size());
    work
}

fn encoder(work: &mut Work, cnn: &CnnConfig, image_size: i64) {
    let mut side = image_size / cnn.stem;
    let mut inputs = cnn.channels;
    work.conv(3 * cnn.stem * cnn.stem, cnn.channels, 3, side, side);
    let last = cnn.encoder_multipliers.len() - 1;
    for (i, multiplier) in cnn.encoder_multipliers.iter().enumerate() {
        let outputs = cnn.channels * multiplier;
        for _ in 0..cnn.res_blocks {
            work.res_block(inputs, outputs, side);
            if cnn.attention && i == last {
                work.conv_attention(outputs, side);
            }
            inputs = outputs;
        }
        if i < last {
            work.conv(outputs, outputs, 3, side / 2, side);
            side /= 2;
        }
    }
    middle(work, cnn, inputs, side);
    work.norm_and_silu(inputs, side);
    work.conv(inputs, cnn.z_channels, 3, side, side);
}

fn decoder(work: &mut Work, cnn: &CnnConfig, image_size: i64) {
    let mut side = image_size / cnn.patch();
    let last = cnn.decoder_multipliers.len() - 1;
    let mut inputs = cnn.channels * cnn.decoder_multipliers[last];
    work.conv(cnn.z_channels, inputs, 3, side, side);
    middle(work, cnn, inputs, side);
    for (i, multiplier) in cnn.decoder_multipliers.iter().enumerate().rev() {
        let outputs = cnn.channels * multiplier;
        if cnn.adaptive_norm {
            work.norm_and_silu(inputs, side);
        }
        for _ in 0..=cnn.res_blocks {
            work.res_block(inputs, outputs, side);
            if cnn.attention && i == last {
                work.conv_attention(outputs, side);
            }
            inputs = outputs;
        }
        if i > 0 {
            match cnn.upsample {
                Upsample::DepthToSpace => work.conv(outputs, 4 * outputs, 3, side, side),
                Upsample::Nearest => work.conv(outputs, outputs, 3, 2 * side, 2 * side),
            }
            side *= 2;
        }
    }
    work.norm_and_silu(inputs, side);
    work.conv(inputs, 3 * cnn.stem * cnn.stem, 3, side, side);
}

fn middle(work: &mut Work, cnn: &CnnConfig, channels: i64, side: i64) {
    work.res_block(channels, channels, side);
    if cnn.attention {
        work.conv_attention(channels, side);
    }
    work.res_block(channels, channels, side);
}

/// Both transformers and the alignment head; the number of tokens between them.
fn transformers(work: &mut Work, config: &GigaTokConfig, grid: i64) -> i64 {
    let (z, places) = (config.cnn.z_channels, grid * grid);
    let (tokens, qformer) = match config.latent {
        Latent::Sequence { num_tokens, .. } => (num_tokens, true),
        Latent::Grid { layers } => (places, layers == GridLayers::Qformer),
    };
    for (size, n) in [(config.encoder.resolve(), tokens), (config.decoder.resolve(), places)] {
        work.linear(z, size.width, places);
        for _ in 0..size.layers {
            if qformer {
                work.layer(size.width, n, 16.0, 2.0, 3.0, 24.0);
            } else {
                work.layer(size.width, n, 12.0, 1.0, 2.0, 16.0);
            }
        }
    }
    let (encoder, decoder) = (config.encoder.resolve().width, config.decoder.resolve().width);
    if qformer {
        work.linear(encoder, encoder, tokens);
    }
    work.linear(encoder, z, tokens);
    work.linear(9 * decoder, z, places);
    if let Some(alignment) = config.alignment {
        let from = if alignment.decoder_layer().is_some() { decoder } else { z };
        work.linear(from, 4 * from, places);
        work.linear(4 * from, 4 * from, places);
        work.linear(4 * from, alignment.width, places);
    }
    tokens
}
