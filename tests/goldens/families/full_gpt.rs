//! A transformer of a released size, with weights by recipe.

use anyhow::{Context, Result};
use ar_model::{ArConfig, AutoregressiveModel, Backend, ConditioningConfig, Gpt, PositionConfig};
use base::{Build, Precision, Vars};
use sampler::{Guidance, GuidanceSchedule};
use tch::{Device, Kind};

use super::gpt::{REDUCED, conditions, dropout, generate, margins, near_fp32};
use crate::check::{Check, Rule};
use crate::golden::Golden;
use crate::recipe::Recipe;
use crate::run::Run;

fn config(golden: &Golden) -> Result<ArConfig> {
    let position = match golden.source().contains("gpt_1d") {
        true => PositionConfig::Learned,
        false => PositionConfig::Rope2d,
    };
    let conditioning = ConditioningConfig::classes(golden.integer("num_classes")?);
    let name = golden.text("model")?;
    let mut config = ArConfig::named(name, position, conditioning, golden.integer("block_size")?)
        .with_context(|| format!("no released size is called `{name}`"))?;
    config.vocab_size = golden.integer("vocab_size")?;
    config.dropout = dropout(0.0);
    Ok(config)
}

fn run(golden: &Golden) -> Result<Run> {
    let kwargs = golden.config("cfg_schedule_kwargs");
    let [start, end] = ["window_start", "window_end"].map(|key| kwargs[key].as_f64());
    let mut run = Run::parse(&format!("cfg_scale 1 {}", golden.meaning("tokens")), false)?;
    run.sampling.guidance = Guidance {
        scale: golden.number("cfg_scale")?,
        schedule: GuidanceSchedule::named(golden.text("cfg_schedule")?, start, end)?,
        interval: None,
    };
    Ok(run)
}

fn build(golden: &Golden, config: &ArConfig) -> Result<(Gpt, Vars)> {
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Empty);
    let model = Gpt::new(&vars.root(), config)?;
    let table = golden.get("recipe_table");
    Recipe::new(&table["seed"], &table["tensors"], "")?.load(&vars, &[])?;
    Ok((model, vars))
}

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    let config = config(golden)?;
    let (model, vars) = build(golden, &config)?;
    let (found, expected) = (vars.num_parameters(), golden.integer("params")?);
    check.must("params", found == expected, format!("{found}, expected {expected}"));

    let codes = check.input("tokens")?.to_kind(Kind::Int64);
    let cond = conditions(check, &config, true)?;
    let logits = tch::no_grad(|| model.logits(&cond, &codes));
    check.compare("teacher_forced_logits_mean_abs", Rule::Values, || {
        logits.abs().mean_dim([-1i64].as_slice(), false, Kind::Float)
    })?;
    check.compare("teacher_forced_logits_last", Rule::Bounded, || logits.select(1, config.num_tokens - 1))?;

    // The tiny goldens run both ways of decoding; at this size the packed one is several times
    // faster.
    let decoder = model.into_decoder(Backend::default_for(Device::Cpu, Precision::Fp32))?;
    let generated = generate(check, &decoder, &config, &run(golden)?, None)?;
    check.compare("tokens", Rule::Equal, || generated.codes)?;
    let margins = margins(&generated.logits); // (B, N)
    check.compare("margin", Rule::Values, || margins.shallow_clone())?;
    check.scalar("min_margin", crate::check::Near::Within(1e-4), crate::check::value(&margins.min()))?;
    let steps = golden.tensor("logits_first2")?.size()[1];
    check.compare("logits_first2", Rule::Bounded, || generated.logits.narrow(1, 0, steps))?;
    drop(generated.logits);
    for precision in REDUCED {
        let backend = Backend::default_for(Device::Cpu, precision);
        let decoder = build(golden, &config)?.0.into_decoder(backend)?;
        near_fp32(check, precision, &decoder.logits(&cond, &codes), &logits);
    }
    Ok(())
}
