//! The optional parts of GigaTok's transformer, with weights by recipe.

use anyhow::{Context, Result};
use ar_model::{ArConfig, AutoregressiveModel, Backend, Gpt};
use base::{Build, Mode, Precision, Vars};
use serde_json::Value;
use tch::{Device, Kind};
use train::losses::language::cross_entropy;

use super::gpt::{conditions, dropout, generate, margins};
use crate::check::{Check, Near, Rule, value};
use crate::recipe::Recipe;
use crate::run::Run;

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    for (option, settings) in golden.config("options").as_object().context("config.options")? {
        if settings["rope"] == true {
            let why = "gpt_1d with RoPE cannot generate upstream and is in no release; it is not part of this program";
            let prefix = format!("{option}.");
            let names = golden.tensor_names().into_iter().chain(golden.scalar_names());
            names.filter(|n| n.starts_with(&prefix)).for_each(|n| check.skip(n, why));
            continue;
        }
        one(check, option, settings)?;
    }
    Ok(())
}

fn one(check: &mut Check, option: &str, settings: &Value) -> Result<()> {
    let golden = check.golden;
    let mut args = golden.config("model_args").clone();
    for (key, value) in settings.as_object().context("an option's settings")? {
        args[key] = value.clone();
    }
    let mut config = ArConfig::from_official(&args, golden.source())?;
    config.dropout = dropout(0.0);
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Empty);
    let model = Gpt::new(&vars.root(), &config)?;
    let table = &golden.get("recipe_tables")[option];
    Recipe::new(&table["seed"], &table["tensors"], "")?.load(&vars, &[])?;

    let named = |what: &str| format!("{option}.{what}");
    let codes = check.input(&named("tokens"))?;
    let cond = conditions(check, &config, true)?;
    let logits = tch::no_grad(|| model.forward(&cond, &codes, Mode::Train));
    check.compare(&named("train_logits"), Rule::Bounded, || logits.shallow_clone())?;
    check.scalar(&named("train_loss"), Near::Loss, value(&cross_entropy(&logits, &codes)))?;

    generated(check, option, &model, &config)?;
    let decoder = model.into_decoder(Backend::default_for(Device::Cpu, Precision::Fp32))?;
    generated(check, option, &decoder, &config)
}

fn generated(
    check: &mut Check,
    option: &str,
    model: &impl AutoregressiveModel,
    config: &ArConfig,
) -> Result<()> {
    let golden = check.golden;
    let named = |what: &str| format!("{option}.{what}");
    let run = Run::parse(golden.meaning(&named("generated")), false)?;
    let found = generate(check, model, config, &run, None)?;
    check.compare(&named("generated"), Rule::Equal, || found.codes)?;
    let steps = golden.tensor(&named("logits"))?.size()[1];
    check.compare(&named("logits"), Rule::Bounded, || found.logits.narrow(1, 0, steps))?;
    let margin = value(&margins(&found.logits).min());
    check.scalar(&named("min_greedy_margin"), Near::Within(1e-4), margin)
}
