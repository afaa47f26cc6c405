//! The models: found at once, loaded one after the other.

use anyhow::{Context as _, Result};
use cli::serve::ServeArgs;
use engine::{Engine, EngineConfig};
use generate::{ModelPair, ModelsConfig};
use server::Server;
use settings::ModelChoice;
use tch::Device;

use crate::error::UserError;
use crate::printer::Printer;

/// Configurations of all engines; nothing is loaded yet.
pub fn find(args: &ServeArgs, device: Device) -> Result<Vec<EngineConfig>> {
    let models = &args.models;
    let named: Vec<Option<String>> = match models.model.as_slice() {
        [] => vec![None],
        names => names.iter().cloned().map(Some).collect(),
    };
    check_single(args, named.len())?;
    let (tokenizer, compute) = (models.tokenizer.choice(), &args.compute);
    let config = |name: Option<String>| {
        let choice = ModelChoice { name, weights: models.weights.clone() };
        let pair = ModelPair::find(&choice, &tokenizer)?;
        let encoder = models.text_encoder.clone().filter(|_| pair.takes_prompts().unwrap_or(false));
        Ok(EngineConfig {
            models: ModelsConfig {
                pair,
                text: None,
                device,
                precision: compute.precision,
                tokenizer_precision: compute.tokenizer_precision,
                gpu: compute.gpu,
            },
            encoder,
            slots: args.limits.slots.number(),
            queue: args.limits.queue as usize,
        })
    };
    let configs = named.into_iter().map(config).collect::<Result<Vec<_>>>()?;
    if models.text_encoder.is_some() && configs.iter().all(|config| config.encoder.is_none()) {
        return Err(UserError::new("`--text-encoder` is for models of prompts, and none is served").into());
    }
    Ok(configs)
}

/// A checkpoint and a tokenizer belong to one model.
fn check_single(args: &ServeArgs, models: usize) -> Result<()> {
    let given = [
        ("--weights", args.models.weights.is_some()),
        ("--tokenizer", args.models.tokenizer.tokenizer.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given && models > 1) {
        None => Ok(()),
        Some((option, _)) => {
            let error = UserError::new(format!("`{option}` belongs to one model, and {models} are served"));
            Err(error.hint("several models are directories, or bundled models").into())
        }
    }
}

/// Loads the models and serves each as soon as it is there.
pub fn start(configs: Vec<EngineConfig>, server: &Server, mut printer: Printer) -> Result<()> {
    for config in configs {
        let name = config.models.pair.name();
        let engine = Engine::start(config, &mut printer).with_context(|| format!("cannot serve `{name}`"))?;
        let info = engine.info();
        let (slots, device, precision) = (info.slots, &info.device, info.precision);
        printer.note(&format!("`{name}`: {slots} slots on {device} in {precision}"));
        server.add(engine)?;
    }
    server.ready();
    printer.note("ready");
    Ok(())
}
