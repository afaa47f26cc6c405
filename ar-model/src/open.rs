//! Loading of transformers.

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

/// Maps a checkpoint's tensor names to the network's. Old LlamaGen files contain the rotary table,
/// which is computed here.
pub fn key_map() -> KeyMap {
    KeyMap::identity().drop("freqs_cis", "computed from the configuration")
}

/// Builds the network of `config` with the weights of a checkpoint, official or of this program.
///
/// # Errors
/// Returns an error if the file cannot be read, or its tensors are not exactly those of the
/// configuration.
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
/// Returns an error if a file is missing, and the errors of [`open`].
pub fn open_dir(dir: &Path, device: Device, precision: Precision) -> Result<Loaded> {
    if let Some(missing) = weights::missing_from(dir) {
        return Err(Error::NotADirectory { dir: dir.to_owned(), missing });
    }
    let config = ArConfig::read(&dir.join(CONFIG_FILE))?;
    open(&config, &dir.join(WEIGHTS_FILE), device, precision)
}
