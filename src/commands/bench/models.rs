//! Timed models: from their directories, or of a configuration's size with random weights.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ar_model::{ArConfig, Conditioning, Decoder, Gpt};
use base::{Build, Precision, TensorKind, Vars};
use cli::bench::{BenchArgs, Work};
use generate::locate::{self, DEFAULT_MODEL};
use settings::{GpuOptions, ModelChoice};
use tch::{Device, Kind, Tensor};
use tokenizer::TokenizerConfig;

use crate::error::UserError;

/// A model's name, its configuration, and its weights unless they are random.
#[derive(Debug)]
struct Subject<C> {
    name: String,
    config: C,
    weights: Option<PathBuf>,
}

/// The models to time.
#[derive(Debug)]
pub struct Subjects {
    transformer: Option<Subject<ArConfig>>,
    tokenizer: Option<Subject<TokenizerConfig>>,
    evaluates: bool,
}

impl Subjects {
    /// Finds what the work needs; loads no weights.
    pub fn find(args: &BenchArgs) -> Result<Self> {
        let transforms = args.work.iter().any(|w| matches!(w, Work::Sample | Work::Train));
        let tokenizes = args.work.iter().any(|w| matches!(w, Work::Encode | Work::Decode));
        Ok(Subjects {
            transformer: transforms.then(|| transformer(args)).transpose()?,
            tokenizer: tokenizes.then(|| tokenizer(args)).transpose()?,
            evaluates: args.work.contains(&Work::Eval),
        })
    }

    /// Text for display.
    pub fn describe(&self) -> String {
        fn one<C>(what: &str, subject: &Option<Subject<C>>) -> Option<String> {
            let s = subject.as_ref()?;
            let weights = if s.weights.is_some() { "" } else { " with random weights" };
            Some(format!("{what} {}{weights}", s.name))
        }
        let inception = self.evaluates.then(|| "Inception with random weights".to_owned());
        let parts = [one("transformer", &self.transformer), one("tokenizer", &self.tokenizer), inception];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// The transformer's configuration.
    pub fn ar_config(&self) -> &ArConfig {
        &self.transformer.as_ref().expect("work with a transformer finds one").config
    }

    /// The tokenizer's configuration.
    pub fn tokenizer_config(&self) -> &TokenizerConfig {
        &self.tokenizer.as_ref().expect("work with a tokenizer finds one").config
    }

    /// The transformer, ready for decoding.
    pub fn transformer(&self, device: Device, precision: Precision, gpu: GpuOptions) -> Result<Decoder> {
        let subject = self.transformer.as_ref().expect("work with a transformer finds one");
        let model = match &subject.weights {
            Some(weights) => ar_model::open(&subject.config, weights, device, precision)?.model,
            None => random_transformer(&subject.config, device, precision.kind())?.0,
        };
        Ok(generate::decoder(model, device, precision, gpu)?)
    }

    /// The tokenizer.
    pub fn tokenizer(
        &self,
        device: Device,
        precision: Precision,
        gpu: GpuOptions,
    ) -> Result<tokenizer::Model> {
        let subject = self.tokenizer.as_ref().expect("work with a tokenizer finds one");
        if let Some(weights) = &subject.weights {
            let mut loaded = tokenizer::open(&subject.config, weights, device, precision)?;
            generate::pack_tokenizer(&mut loaded.model, &loaded.vars, gpu)?;
            return Ok(loaded.model);
        }
        let vars = Vars::new(device, precision.kind(), Build::Random);
        let mut model = tokenizer::Model::new(&vars.root(), &subject.config)?;
        model.pack(&vars);
        generate::pack_tokenizer(&mut model, &vars, gpu)?;
        Ok(model)
    }
}

/// A transformer with the weights that training starts from.
pub fn random_transformer(config: &ArConfig, device: Device, kind: Kind) -> Result<(Gpt, Vars)> {
    let vars = Vars::new(device, kind, Build::Random);
    Ok((Gpt::new(&vars.root(), config)?, vars))
}

fn transformer(args: &BenchArgs) -> Result<Subject<ArConfig>> {
    let name = args.model.clone().unwrap_or_else(|| DEFAULT_MODEL.into());
    if Path::new(&name).is_file() {
        let config = ArConfig::read(Path::new(&name))?;
        return Ok(Subject { name, config, weights: None });
    }
    let location = locate::transformer(&choice(&args.model))?;
    let config = ArConfig::read(&location.config_file())?;
    Ok(Subject { name, config, weights: Some(location.weights_file()) })
}

fn tokenizer(args: &BenchArgs) -> Result<Subject<TokenizerConfig>> {
    if let Some(name) = args.tokenizer.clone().filter(|name| Path::new(name).is_file()) {
        let config = TokenizerConfig::read(Path::new(&name))?;
        return Ok(Subject { name, config, weights: None });
    }
    let location = match (&args.tokenizer, &args.model) {
        (Some(_), _) => locate::tokenizer(&choice(&args.tokenizer))?,
        (None, Some(model)) if Path::new(model).is_file() => {
            return Err(UserError::new(format!("`{model}` does not say which tokenizer made its codes"))
                .hint("name one with `--tokenizer`, or leave out encode and decode with `--work`")
                .into());
        }
        (None, model) => {
            locate::tokenizer_of(&locate::transformer(&choice(model))?, &ModelChoice::default())?
        }
    };
    let name = args.tokenizer.clone().or_else(|| args.model.clone()).unwrap_or_else(|| DEFAULT_MODEL.into());
    let config = TokenizerConfig::read(&location.config_file())?;
    Ok(Subject { name, config, weights: Some(location.weights_file()) })
}

fn choice(name: &Option<String>) -> ModelChoice {
    ModelChoice { name: name.clone(), weights: None }
}

/// A batch of classes for a transformer.
pub fn classes(config: &ArConfig, batch: i64, device: Device) -> Result<Conditioning> {
    let ar_model::ConditioningConfig::Class { num_classes, .. } = config.conditioning else {
        return Err(UserError::new("only class-conditional transformers are timed").into());
    };
    let classes = Tensor::arange(batch, (Kind::Int64, device)).remainder(num_classes);
    Ok(Conditioning::Class(classes))
}
