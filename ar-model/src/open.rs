//! Transformers from files.

use std::path::Path;

use base::{Build, Precision, TensorKind, Vars};
use tch::Device;
use weights::{CONFIG_FILE, KeyMap, WEIGHTS_FILE};

use crate::config::ArConfig;
use crate::error::{Error, Result};
use crate::model::Gpt;
use crate::released::signatures;

/// A transformer with its weights.
pub type Loaded = weights::Loaded<Gpt, ArConfig>;

/// A checkpoint's names → a transformer's. Old LlamaGen files hold the rotary table, which is computed.
pub fn key_map() -> KeyMap {
    KeyMap::identity().drop("freqs_cis", "computed from the configuration")
}

/// Builds `config` and fills it from an official or our own checkpoint.
///
/// # Errors
/// The file cannot be read, or its tensors are not exactly the configuration's.
pub fn open(config: &ArConfig, checkpoint: &Path, device: Device, precision: Precision) -> Result<Loaded> {
    let vars = Vars::new(device, precision.kind(), Build::Empty);
    let model = Gpt::new(&vars.root(), config)?;
    let source = weights::fill(
        &vars,
        checkpoint,
        &key_map().drop("text_encoder.**", "a text encoder that was trained along"),
        signatures,
    )
    .map_err(|e| Error::Load { path: checkpoint.to_owned(), source: Box::new(e) })?;
    Ok(Loaded { model, config: config.clone(), vars, source })
}

/// Opens a model directory: `config.yaml` and `weights.safetensors`.
///
/// # Errors
/// A file is missing, or as [`open`].
pub fn open_dir(dir: &Path, device: Device, precision: Precision) -> Result<Loaded> {
    if let Some(missing) = weights::missing_from(dir) {
        return Err(Error::NotADirectory { dir: dir.to_owned(), missing });
    }
    let config = ArConfig::read(&dir.join(CONFIG_FILE))?;
    open(&config, &dir.join(WEIGHTS_FILE), device, precision)
}
