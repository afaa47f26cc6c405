//! Costs of a transformer's training: 6 FLOP a weight and position, and 12 · L · D · S for attention, counted in full
//! (the convention of PaLM and nanoGPT).

use ar_model::{ArConfig, Gpt};
use base::{Build, Precision, Vars};
use tch::{Device, Kind};

use super::{Plan, width};
use crate::Result;
use crate::recipe::Optimization;

/// What a layer keeps for each position, in widths: two norms' inputs and normalised inputs in fp32; in the activations'
/// kind both norms' outputs, q, k and v, the attention's output twice, and four times the feed-forward's width. Rotary
/// embedding keeps queries and keys in fp32. A CPU's fused layers keep less: no normalised inputs, three times the
/// feed-forward's width, no masks.
fn kept_by_a_layer(config: &ArConfig, kind: f64) -> f64 {
    let d = config.width as f64;
    let rotary = if config.position == ar_model::PositionConfig::Rope2d { 2.0 } else { 0.0 };
    let rates = &config.dropout;
    let masks = f64::from(u8::from(rates.residual > 0.0)) + f64::from(u8::from(rates.feed_forward > 0.0));
    let hidden = config.feed_forward_width() as f64;
    let qkv = config.qkv_width() as f64;
    4.0 * (4.0 + rotary) * d + kind * ((4.0 + 2.0) * d + qkv + 4.0 * hidden) + masks * d
}

/// A run with this model.
pub(crate) fn transformer(config: &ArConfig, optimization: &Optimization, recompute: bool) -> Result<Plan> {
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
    Gpt::new(&vars.root(), config)?;
    let parameters = vars.num_parameters() as f64;
    let (l, d, v) = (config.layers as f64, config.width as f64, config.vocab_size as f64);
    let s = (config.conditioning.prefix_len() + config.num_tokens) as f64;
    let multiplied = config.product_weights() as f64;
    let mut plan = Plan::new(parameters, optimization);
    let layer = kept_by_a_layer(config, width(optimization.precision));
    let (forward, inputs) =
        if recompute { (4.0 / 3.0, width(optimization.precision) * d) } else { (1.0, 0.0) };
    // Recomputing runs all layers forward again, but not the head.
    let head = 6.0 * v * d;
    plan.flops_per_image = s * (forward * (6.0 * multiplied + 12.0 * l * d * s - head) + head);
    plan.positions = Some(s);
    plan.activations_per_image = s * if recompute { l * inputs + layer } else { l * layer };
    // The loss: a part of the logits in three forms, and the gradient of the output layer.
    plan.working = 3.0 * 4.0 * crate::losses::language::LOGITS_AT_A_TIME as f64 + 4.0 * v * d;
    if optimization.precision != Precision::Fp32 {
        // Weights in the activations' kind, kept for the backward pass; a layer's at a time when it is run again.
        plan.working += 2.0 * if recompute { parameters / l } else { parameters };
    }
    Ok(plan)
}
