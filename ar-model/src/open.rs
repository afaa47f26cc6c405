//! Transformers from files.

use std::path::{Path, PathBuf};

use base::{Build, Precision, Vars};
use tch::Device;
use weights::{Checkpoint, KeyMap, TensorSource, Want};

use crate::config::ArConfig;
use crate::error::{Error, Result};
use crate::model::Gpt;
use crate::released::signatures;

/// A transformer with its weights.
pub struct Loaded {
    /// The network.
    pub model: Gpt,
    /// What it was built from.
    pub config: ArConfig,
    /// Its variables.
    pub vars: Vars,
    /// The file and the section of it that was taken.
    pub source: Box<dyn TensorSource>,
}

impl Loaded {
    /// Hash of the weights in the file, whatever precision they were loaded in. Reads all of it.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn fingerprint(&self) -> Result<String> {
        let path = || self.source.origin().path.clone();
        weights::fingerprint_source(self.source.as_ref()).map_err(|e| load_error(path(), e))
    }
}

/// Adds which released model the file looks like.
fn name_likely(e: weights::Error, source: &dyn TensorSource) -> weights::Error {
    let known = signatures();
    e.with_likely(weights::likely(source, &known).into_iter().map(weights::Signature::sentence))
}

fn load_error(path: PathBuf, source: weights::Error) -> Error {
    Error::Load { path, source: Box::new(source) }
}

/// Builds `config` and fills it from an official or our own checkpoint.
///
/// # Errors
/// The file cannot be read, or its tensors are not exactly the configuration's.
pub fn open(config: &ArConfig, checkpoint: &Path, device: Device, precision: Precision) -> Result<Loaded> {
    let vars = Vars::new(device, precision.kind(), Build::Empty);
    let model = Gpt::new(&vars.root(), config)?;
    let fail = |e| load_error(checkpoint.to_owned(), e);
    let source = Checkpoint::open(checkpoint).and_then(|c| c.source(Want::Auto)).map_err(fail)?;
    // Old LlamaGen files hold the rotary table, which is computed.
    let map = KeyMap::identity().drop("freqs_cis", "computed from the configuration");
    weights::load(&vars, source.as_ref(), &map).map_err(|e| fail(name_likely(e, source.as_ref())))?;
    Ok(Loaded { model, config: config.clone(), vars, source })
}

/// Opens a model directory: `config.yaml` and `weights.safetensors`.
///
/// # Errors
/// A file is missing, or as [`open`].
pub fn open_dir(dir: &Path, device: Device, precision: Precision) -> Result<Loaded> {
    for missing in ["config.yaml", "weights.safetensors"] {
        if !dir.join(missing).is_file() {
            return Err(Error::NotADirectory { dir: dir.to_owned(), missing });
        }
    }
    let config = ArConfig::read(&dir.join("config.yaml"))?;
    open(&config, &dir.join("weights.safetensors"), device, precision)
}
