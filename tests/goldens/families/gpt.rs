//! Small transformers: teacher-forced logits, gradients, hidden states and recorded generations.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ar_model::{
    ArConfig, AutoregressiveModel, Backend, Conditioning, ConditioningConfig, DropoutConfig, Loaded,
    PositionConfig, rope_2d,
};
use base::config::Document;
use base::testing::rel_l2;
use base::{Mode, Precision, SampleStream};
use sampler::{Guidance, GuidanceSchedule, RandomSource, Sampler};
use tch::{Device, Kind, Tensor};
use train::losses::language::{cross_entropy, masked_cross_entropy};
use train::optim::global_norm;

use super::tokenizer::compare_gradients;
use crate::check::{Check, Near, Rule, value};
use crate::golden::Golden;
use crate::run::Run;

/// The dropout of a golden: one rate for all, and no condition is ever dropped.
pub fn dropout(rate: f64) -> DropoutConfig {
    DropoutConfig {
        token: rate,
        attention: rate,
        residual: rate,
        feed_forward: rate,
        drop_path: rate,
        condition: 0.0,
    }
}

/// The modes that do not reproduce fp32.
pub const REDUCED: [Precision; 2] = [Precision::Bf16, Precision::Int8];

/// Logits of a reduced mode: relative 2-norm of at most 5% from fp32's (weights lose 2⁻⁹ of
/// themselves in bf16, 1/254 of their row's largest in int8).
pub fn near_fp32(check: &mut Check, precision: Precision, found: &Tensor, expected: &Tensor) {
    let off = rel_l2(found, expected);
    check.must(&format!("logits in {precision}"), off <= 0.05, format!("relative {off:.1e} (at most 5e-2)"));
}

/// Opens the transformer that a golden describes, through the ordinary reader.
pub fn open(golden: &Golden) -> Result<Loaded> {
    let mut config = ArConfig::from_document(&Document::read(golden.path())?)?;
    config.dropout = dropout(golden.number("dropouts")?);
    let loaded = ar_model::open(&config, &golden.checkpoint()?, Device::Cpu, Precision::Fp32)?;
    golden.check_section(loaded.source.as_ref())?;
    Ok(loaded)
}

/// Conditions of a golden: classes, or text features with their padding mask (all ones if not
/// `masked`).
pub fn conditions(check: &mut Check, config: &ArConfig, masked: bool) -> Result<Conditioning> {
    Ok(match config.conditioning {
        ConditioningConfig::Class { .. } => Conditioning::Class(check.input("class_ids")?),
        ConditioningConfig::Text { .. } => {
            let mask = check.input("caption_mask")?.to_kind(Kind::Bool);
            let mask = if masked { mask } else { mask.ones_like() };
            Conditioning::Text { features: check.input("caption_emb")?, mask }
        }
    })
}

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let loaded = open(check.golden)?;
    let codes = check.input("tokens")?;
    teacher_forced(check, &loaded, &codes)?;
    tch::no_grad(|| other_passes(check, &loaded, &codes))?;
    generations(check, &loaded.model, &loaded.config)?;
    let cond = conditions(check, &loaded.config, true)?;
    let expected = tch::no_grad(|| loaded.model.logits(&cond, &codes));
    let decoder = loaded.model.into_decoder(Backend::default_for(Device::Cpu, Precision::Fp32))?;
    println!("  packed for the CPU, fp32:");
    generations(check, &decoder, &loaded.config)?;
    for precision in REDUCED {
        let backend = Backend::default_for(Device::Cpu, precision);
        let decoder = open(check.golden)?.model.into_decoder(backend)?;
        near_fp32(check, precision, &decoder.logits(&cond, &codes), &expected);
    }
    schedules(check)?;
    for name in ["gigatok_2d_eval_logits_max_abs_diff", "gigatok_2d_generate_token_agreement"] {
        if check.golden.scalar_names().contains(&name) {
            check.skip(name, "compares two official implementations with each other");
        }
    }
    Ok(())
}

fn teacher_forced(check: &mut Check, loaded: &Loaded, codes: &Tensor) -> Result<()> {
    let cond = conditions(check, &loaded.config, true)?;
    loaded.vars.set_requires_grad(true);
    let logits = loaded.model.forward(&cond, codes, Mode::Train);
    check.compare("train_logits", Rule::Bounded, || logits.shallow_clone())?;
    let loss = cross_entropy(&logits, codes);
    check.scalar("train_loss", Near::Loss, value(&loss))?;
    let valid = Tensor::arange(cond.batch_size(), (Kind::Int64, Device::Cpu)).eq(0);
    check.scalar("train_loss_one_valid", Near::Loss, value(&masked_cross_entropy(&logits, codes, &valid)))?;
    loss.backward();
    compare_gradients(check, "grad.", |name| loaded.vars.get(name))?;
    let gradients: Vec<Tensor> = loaded.vars.parameters().iter().map(|v| v.tensor.grad()).collect();
    check.scalar("grad_norm", Near::GradientNorm, value(&global_norm(&gradients)))?;
    loaded.vars.set_requires_grad(false);
    Ok(())
}

fn other_passes(check: &mut Check, loaded: &Loaded, codes: &Tensor) -> Result<()> {
    let model = &loaded.model;
    let cond = conditions(check, &loaded.config, true)?;
    check.compare("null_logits", Rule::Bounded, || model.logits(&model.null_conditioning(&cond), codes))?;
    let unmasked = conditions(check, &loaded.config, false)?;
    check.compare("train_logits_nomask", Rule::Bounded, || model.forward(&unmasked, codes, Mode::Train))?;
    for name in check.golden.tensor_names() {
        if let Some(layer) = name.strip_prefix("inner_feat_layer") {
            let layer = layer.parse().with_context(|| format!("the layer of `{name}`"))?;
            check.compare(name, Rule::Values, || model.hidden(&cond, codes, layer, Mode::Train))?;
        }
    }
    // Both say `force_drop_ids = [1, 0, ...]`: the first condition is dropped.
    let first = Tensor::arange(cond.batch_size(), (Kind::Int64, Device::Cpu)).eq(0);
    for name in ["label_embed_forced_drop", "caption_embed_forced_drop"] {
        if !check.golden.has(name) {
            continue;
        }
        ensure!(check.golden.meaning(name).contains("force_drop_ids = [1, 0"), "another drop in `{name}`");
        let kept = check.golden.tensor(name)?.size()[1]; // the last positions
        check.compare(name, Rule::Values, || {
            let all = model.embed_condition(&cond, Some(&first));
            all.narrow(1, all.size()[1] - kept, kept)
        })?;
    }
    if loaded.config.position == PositionConfig::Rope2d {
        let spec = model.spec();
        let head = loaded.config.width / loaded.config.heads;
        let base = loaded.config.rope_base;
        check.compare("freqs_cis", Rule::Values, || rope_2d(spec.prefix_len, spec.num_tokens, head, base))?;
    }
    Ok(())
}

/// Checks every recorded generation with the sampler's loop; returns the smallest margin of the
/// greedy ones.
fn generations(check: &mut Check, model: &impl AutoregressiveModel, config: &ArConfig) -> Result<()> {
    let mut margin = f64::INFINITY;
    for name in check.golden.tensor_names() {
        let Some(prefix) = name.strip_suffix(".tokens") else { continue };
        let run = Run::parse(check.golden.meaning(name), is_greedy(prefix))?;
        let seed = check.golden.config(prefix)["seed"].as_i64();
        let found = generate(check, model, config, &run, seed)?;
        check.compare(name, Rule::Equal, || found.codes)?;
        let logits = format!("{prefix}.logits");
        if check.golden.has(&logits) {
            let steps = check.golden.tensor(&logits)?.size()[1];
            check.compare(&logits, Rule::Bounded, || found.logits.narrow(1, 0, steps))?;
        }
        if run.greedy {
            margin = margin.min(value(&margins(&found.logits).min()));
        }
    }
    check.scalar("min_greedy_margin", Near::Within(1e-4), margin)
}

fn is_greedy(name: &str) -> bool {
    name.starts_with("greedy.") || name.starts_with("argmax.")
}

/// Result of one generation.
pub struct Generated {
    /// (B, N).
    pub codes: Tensor,
    /// Guided logits of all steps, (B, N, V).
    pub logits: Tensor,
}

/// Runs the sampler as recorded; a run that is not greedy needs the seed of libtorch's generator.
pub fn generate(
    check: &mut Check,
    model: &impl AutoregressiveModel,
    config: &ArConfig,
    run: &Run,
    seed: Option<i64>,
) -> Result<Generated> {
    let cond = conditions(check, config, run.masked)?;
    let streams: Vec<SampleStream> =
        (0..cond.batch_size() as u64).map(|index| SampleStream { seed: 0, index }).collect();
    let draw = if run.greedy {
        RandomSource::Streams(&streams)
    } else {
        tch::manual_seed(seed.context("a stochastic run without a seed in config")?);
        RandomSource::Torch
    };
    let steps = config.num_tokens as usize;
    let (codes, logits) = Sampler::new(model).generate_with_logits(&cond, &run.sampling, draw, steps)?;
    Ok(Generated { codes: codes.into_tensor(), logits })
}

/// Best minus second best logit: (.., V) → (..).
pub fn margins(logits: &Tensor) -> Tensor {
    let (two, _) = logits.topk(2, -1, true, true);
    two.select(-1, 0) - two.select(-1, 1)
}

/// `schedule.cfgS.NAME`: the scales of the decode steps. The bounds of windows are those of the
/// runs with that schedule, else the official defaults.
fn schedules(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    let mut windows = BTreeMap::new();
    for name in golden.tensor_names().into_iter().filter(|n| n.ends_with(".tokens")) {
        let schedule = Run::parse(golden.meaning(name), true)?.sampling.guidance.schedule;
        windows.insert(schedule.name(), schedule);
    }
    for name in golden.tensor_names() {
        let Some((scale, schedule)) = name.strip_prefix("schedule.cfg").and_then(|n| n.rsplit_once('.'))
        else {
            continue;
        };
        let scale: f64 = scale.parse().with_context(|| format!("the scale of `{name}`"))?;
        let schedule = match windows.get(schedule) {
            Some(known) => *known,
            None => GuidanceSchedule::named(schedule, None, None)?,
        };
        ensure!(golden.meaning(name).contains("ratio = step/"), "`{name}` is something else");
        let n = golden.tensor(name)?.size()[0]; // decode steps; one code more than that
        let guidance = Guidance { scale, schedule, interval: None };
        let at = |step: i64| match guidance.active() {
            true => guidance.at(step as usize, n as usize + 1),
            false => schedule.scale(step as f64 / n as f64, scale), // the loop never asks
        };
        let found: Vec<f64> = (1..=n).map(at).collect();
        check.compare(name, Rule::Double, || Tensor::from_slice(&found))?;
    }
    Ok(())
}
