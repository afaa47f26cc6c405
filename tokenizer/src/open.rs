//! Tokenizers from files.

use std::path::Path;

use base::{Build, Precision, TensorKind, Vars};
use libtorch_ext::cuda_kernel::CudaKernels;
use tch::{Device, Kind};
use weights::{CONFIG_FILE, KeyMap, WEIGHTS_FILE};

use crate::any::Model;
use crate::config::TokenizerConfig;
use crate::error::{Error, Result};
use crate::released::signatures;

/// A tokenizer with its weights.
pub type Loaded = weights::Loaded<Model, TokenizerConfig>;

/// Builds `config` and fills it from an official or our own checkpoint.
///
/// # Errors
/// Returns an error if the file cannot be read, or its tensors are not exactly the configuration's.
pub fn open(
    config: &TokenizerConfig,
    checkpoint: &Path,
    device: Device,
    precision: Precision,
) -> Result<Loaded> {
    let vars = Vars::new(device, precision.kind(), Build::Empty);
    let mut model = Model::new(&vars.root(), config)?;
    let source = weights::fill(&vars, checkpoint, &KeyMap::identity(), signatures)
        .map_err(|e| Error::Load { path: checkpoint.to_owned(), source: Box::new(e) })?;
    model.pack(&vars);
    Ok(Loaded { model, config: config.clone(), vars, source })
}

/// Puts the weights of convolutions into the order of pixels.
fn arrange(vars: &Vars) {
    for mut var in vars.all() {
        if matches!(var.tensor.size()[..], [_, _, h, w] if h * w > 1) {
            let arranged = nn::channels_last(&var.tensor);
            var.tensor.set_data(&arranged);
        }
    }
}

impl Model {
    /// Readies a tokenizer with its variables for encoding and decoding; from then on its weights
    /// must stay as they are.
    ///
    /// On the CPU the weights of convolutions go into the order of their inputs, once instead of in
    /// every pass, and those of large maps get a second form ([`nn::Conv2d::pack`]). The process
    /// keeps the memory of feature maps from one layer to the next: a map of 256² pixels is too
    /// large for what the C library keeps by itself, and pages that the system hands out again and
    /// again cost a quarter of the time.
    pub fn pack(&mut self, vars: &Vars) {
        if vars.device() != Device::Cpu || !matches!(vars.kind(), Kind::Float | Kind::BFloat16) {
            return;
        }
        libtorch_ext::runtime::keep_freed_memory();
        arrange(vars);
        self.pack_cnn();
    }

    /// Readies a tokenizer in bf16 on a GPU likewise: its convolutions work channels last, as they
    /// do there with the least effort, and its group norms through the kernels of `cuda-kernels`.
    ///
    /// # Errors
    /// Returns an error if the kernels cannot be run.
    pub fn pack_on_gpu(&mut self, vars: &Vars) -> Result<()> {
        let (Device::Cuda(index), Kind::BFloat16) = (vars.device(), vars.kind()) else { return Ok(()) };
        CudaKernels::shared(index)?;
        arrange(vars);
        Ok(())
    }
}

/// Opens a tokenizer directory: `config.yaml` and `weights.safetensors`.
///
/// # Errors
/// Returns an error if a file is missing, and as [`open`] does.
pub fn open_dir(dir: &Path, device: Device, precision: Precision) -> Result<Loaded> {
    if let Some(missing) = weights::missing_from(dir) {
        return Err(Error::NotADirectory { dir: dir.to_owned(), missing });
    }
    let config = TokenizerConfig::read(&dir.join(CONFIG_FILE))?;
    open(&config, &dir.join(WEIGHTS_FILE), device, precision)
}
