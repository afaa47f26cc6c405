//! One golden: its manifest, its tensors, its weights.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use weights::{Checkpoint, TensorSource};

/// A manifest and the tensors beside it.
pub struct Golden {
    path: PathBuf,
    manifest: Value,
    tensors: Box<dyn TensorSource>,
}

fn kind_named(dtype: &str) -> Result<Kind> {
    Ok(match dtype {
        "float64" => Kind::Double,
        "float32" => Kind::Float,
        "float16" => Kind::Half,
        "bfloat16" => Kind::BFloat16,
        "int64" => Kind::Int64,
        "int32" => Kind::Int,
        "uint8" => Kind::Uint8,
        "bool" => Kind::Bool,
        other => bail!("unknown dtype `{other}`"),
    })
}

/// All tensors of a safetensors file.
fn open_tensors(path: &Path) -> Result<Box<dyn TensorSource>> {
    Ok(Checkpoint::open(path)?.section(None)?)
}

impl Golden {
    /// Reads the manifest, and the table of contents of the tensors.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading `{}`", path.display()))?;
        let manifest: Value = serde_json::from_str(&text).context("not JSON")?;
        for key in ["name", "source", "config", "tensors"] {
            ensure!(manifest.get(key).is_some(), "not a manifest: there is no `{key}`");
        }
        let tensors = open_tensors(&path.with_extension("safetensors"))?;
        Ok(Golden { path: path.to_owned(), manifest, tensors })
    }

    /// The manifest's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another golden of the folder, which this one names.
    pub fn sibling(&self, name: &str) -> Result<Golden> {
        Golden::open(&self.path.with_file_name(format!("{name}.json")))
    }

    /// A part of the manifest; null where there is none.
    pub fn get(&self, key: &str) -> &Value {
        &self.manifest[key]
    }

    /// A part of the configuration; null where there is none.
    pub fn config(&self, key: &str) -> &Value {
        &self.manifest["config"][key]
    }

    /// A number of the configuration.
    pub fn number(&self, key: &str) -> Result<f64> {
        self.config(key).as_f64().with_context(|| format!("config.{key} is not a number"))
    }

    /// A whole number of the configuration.
    pub fn integer(&self, key: &str) -> Result<i64> {
        self.config(key).as_i64().with_context(|| format!("config.{key} is not a whole number"))
    }

    /// A text of the configuration.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.config(key).as_str().with_context(|| format!("config.{key} is not a text"))
    }

    /// Source of the golden.
    pub fn source(&self) -> &str {
        self.manifest["source"].as_str().unwrap_or("")
    }

    fn names(&self, key: &str) -> Vec<&str> {
        self.manifest[key].as_object().map(|m| m.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// The tensors the manifest lists.
    pub fn tensor_names(&self) -> Vec<&str> {
        self.names("tensors")
    }

    /// The scalars the manifest lists.
    pub fn scalar_names(&self) -> Vec<&str> {
        self.names("scalars")
    }

    /// Whether the manifest lists such a tensor.
    pub fn has(&self, tensor: &str) -> bool {
        self.manifest["tensors"].get(tensor).is_some()
    }

    /// The shape of a tensor, if the manifest lists it.
    pub fn shape(&self, tensor: &str) -> Option<Vec<i64>> {
        serde_json::from_value(self.manifest["tensors"].get(tensor)?["shape"].clone()).ok()
    }

    /// The manifest's description of a tensor or scalar.
    pub fn meaning(&self, name: &str) -> &str {
        let entry = self.manifest["tensors"].get(name).or_else(|| self.manifest["scalars"].get(name));
        entry.and_then(|e| e["meaning"].as_str()).unwrap_or("")
    }

    /// Relative difference between two runs of the official code; 0 where none is given.
    pub fn noise(&self, tensor: &str) -> f64 {
        self.manifest["tensors"][tensor]["rel_l2_noise"].as_f64().unwrap_or(0.0)
    }

    /// The noise of the noisiest gradient.
    pub fn gradient_noise(&self) -> f64 {
        let gradients = self.tensor_names().into_iter().filter(|n| n.starts_with("grad."));
        gradients.map(|n| self.noise(n)).fold(0.0, f64::max)
    }

    /// The value of a scalar.
    pub fn scalar(&self, name: &str) -> Result<f64> {
        let value = self.manifest["scalars"][name]["value"].as_f64();
        value.with_context(|| format!("there is no scalar `{name}`"))
    }

    /// A tensor as stored.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        Ok(self.tensors.read(name, Device::Cpu)?)
    }

    /// Checks that file and manifest hold the same tensors, of the same shapes and dtypes.
    pub fn check_contents(&self) -> Result<()> {
        for name in self.tensor_names() {
            let info = self.tensors.info(name).with_context(|| format!("the file lacks tensor `{name}`"))?;
            let entry = &self.manifest["tensors"][name];
            let shape: Vec<i64> = serde_json::from_value(entry["shape"].clone())?;
            let kind = kind_named(entry["dtype"].as_str().unwrap_or(""))?;
            ensure!(info.shape == shape && info.kind == kind, "`{name}`: manifest and file differ");
        }
        for name in self.tensors.names() {
            ensure!(self.has(name), "the manifest does not list tensor `{name}`");
        }
        Ok(())
    }

    /// Path of the weights: the `.pt`, else `.weights.safetensors`. If both exist they must hold
    /// the same.
    pub fn checkpoint(&self) -> Result<PathBuf> {
        let torch = self.path.with_extension("pt");
        let safe = self.path.with_extension("weights.safetensors");
        if torch.is_file() && safe.is_file() {
            let taken = Checkpoint::open(&torch)?.source(weights::Want::Auto)?;
            let other = open_tensors(&safe)?;
            ensure!(
                weights::fingerprint_source(taken.as_ref())? == weights::fingerprint_source(other.as_ref())?,
                "`{}` and `{}` hold different weights",
                torch.display(),
                safe.display()
            );
        }
        [&torch, &safe]
            .into_iter()
            .find(|p| p.is_file())
            .cloned()
            .with_context(|| format!("neither `{}` nor `{}` exists", torch.display(), safe.display()))
    }

    /// The section of a `.pt` that holds the weights according to the manifest; `None` at the top
    /// level.
    pub fn wrapping(&self) -> Result<Option<&str>> {
        Ok(match self.text("checkpoint_wrapping")? {
            "bare" => None,
            "tokenizer" => Some("model"),
            section @ ("ema" | "model" | "module" | "state_dict") => Some(section),
            other => bail!("unknown checkpoint_wrapping `{other}`"),
        })
    }

    /// Checks that the weights were taken from the section of the `.pt` that the manifest names.
    pub fn check_section(&self, taken: &dyn TensorSource) -> Result<()> {
        let origin = taken.origin();
        if origin.path.extension().is_some_and(|e| e == "pt") {
            let expected = self.wrapping()?;
            ensure!(
                origin.section.as_deref() == expected,
                "section {:?} was taken, {expected:?} holds the weights",
                origin.section
            );
        }
        Ok(())
    }
}
