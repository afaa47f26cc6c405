//! The text encoder that goes with a transformer.

use std::path::{Path, PathBuf};

use ar_model::{ArConfig, Conditioning, ConditioningConfig};
use backbones::text_encoder::{EncoderFiles, TextDescription, TextEncoder, TextFeatures, WhichEncoder};
use base::Precision;
use settings::ModelChoice;
use tch::{Device, Kind, Tensor};

use crate::config::ModelsConfig;
use crate::error::{Error, Result};
use crate::locate::Location;
use crate::provenance::ModelId;

/// Encoder of prompts for a transformer.
pub struct PromptEncoder {
    encoder: TextEncoder,
    weights: PathBuf,
    form: FeatureForm,
}

/// Form of a prompt's features.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeatureForm {
    /// Positions of the transformer's condition, at least L.
    pub length: i64,
    /// C.
    pub width: i64,
    /// Dtype.
    pub kind: Kind,
    /// Device of the transformer.
    pub device: Device,
}

impl FeatureForm {
    /// (L, C) features of each prompt → (B) conditions.
    pub fn conditions(&self, texts: &[Tensor]) -> Conditioning {
        let TextFeatures { features, mask } = TextFeatures::from_texts(texts, self.length);
        Conditioning::Text { features: features.to_device(self.device), mask: mask.to_device(self.device) }
    }
}

impl PromptEncoder {
    /// Loads the encoder in `folder`, where one is named, else the model's own.
    ///
    /// # Errors
    /// Returns an error if the model takes no prompts, or the encoder is unknown, is another than
    /// the model was trained with, or cannot be read.
    pub fn open(folder: Option<&Path>, models: &ModelsConfig) -> Result<Self> {
        let (length, width) = sizes(&models.pair.ar_config()?)?;
        let (files, clean, expected) = which(folder, &models.pair.transformer)?;
        let (device, kind) = (models.device, kind(models.precision));
        let encoder = TextEncoder::open(&files, length, clean, device, kind)?;
        check(&encoder, expected.as_deref(), width, &files)?;
        Ok(PromptEncoder {
            encoder,
            weights: files.weights,
            form: FeatureForm { length, width, kind, device },
        })
    }

    /// Its checkpoint.
    pub fn weights(&self) -> &Path {
        &self.weights
    }

    /// Its identity.
    pub fn id(&self) -> ModelId {
        let name = ModelChoice::named(self.weights.display().to_string());
        ModelId::of(&name, self.encoder.fingerprint().to_owned())
    }

    /// Number of tokens of a prompt that are used.
    pub fn length(&self) -> i64 {
        self.encoder.length()
    }

    /// Whether a prompt has more tokens than are used.
    ///
    /// # Errors
    /// Returns an error if the prompt cannot be tokenized.
    pub fn cuts(&self, prompt: &str) -> Result<bool> {
        Ok(self.encoder.cuts(prompt)?)
    }

    /// (L, C) features of a prompt on the CPU, L tokens long.
    ///
    /// # Errors
    /// Returns an error if the prompt cannot be tokenized, or its features are not finite.
    pub fn encode(&self, prompt: &str) -> Result<Tensor> {
        Ok(self.encoder.encode(&[prompt])?.texts().remove(0).to_device(Device::Cpu))
    }

    /// (B) conditions of prompts.
    ///
    /// # Errors
    /// Returns an error if [`PromptEncoder::encode`] does.
    pub fn conditions(&self, prompts: &[&str]) -> Result<Conditioning> {
        let texts = prompts.iter().map(|prompt| self.encode(prompt)).collect::<Result<Vec<_>>>()?;
        Ok(self.conditions_of(&texts))
    }

    /// (B) conditions of prompts' features, (L, C) each.
    pub fn conditions_of(&self, texts: &[Tensor]) -> Conditioning {
        self.form.conditions(texts)
    }

    pub(crate) fn form(&self) -> FeatureForm {
        self.form
    }
}

/// Dtype of the encoder beside a transformer of this precision: T5's activations leave the range of
/// fp16, and 8-bit weights are for decoding alone.
fn kind(transformer: Precision) -> Kind {
    match transformer {
        Precision::Bf16 => Kind::BFloat16,
        Precision::Fp32 | Precision::Fp16 | Precision::Int8 => Kind::Float,
    }
}

/// Number of positions and width that the transformer takes.
fn sizes(config: &ArConfig) -> Result<(i64, i64)> {
    match config.conditioning {
        ConditioningConfig::Text { length, feature_width } => Ok((length, feature_width)),
        ConditioningConfig::Class { .. } => Err(Error::NeedsClasses),
    }
}

/// The encoder's files, whether its texts are cleaned, and the fingerprint it must have.
fn which(given: Option<&Path>, model: &Location) -> Result<(EncoderFiles, bool, Option<String>)> {
    let described = match model {
        Location::Directory(dir) => TextDescription::in_directory(dir)?,
        Location::Files { .. } => None,
    };
    let clean = described.as_ref().is_none_or(|d| d.clean);
    let files = match (given, described.map(|d| d.encoder), model) {
        (Some(folder), Some(WhichEncoder::Inside), _) => {
            return Err(Error::HasTextEncoder { folder: folder.to_owned() });
        }
        (None, Some(WhichEncoder::Inside), Location::Directory(dir)) => (EncoderFiles::inside(dir), None),
        (Some(folder), Some(WhichEncoder::Outside { fingerprint, .. }), _) => {
            (EncoderFiles::in_folder(folder), Some(fingerprint))
        }
        (Some(folder), None, _) => (EncoderFiles::in_folder(folder), None),
        (None, Some(WhichEncoder::Outside { fingerprint, folder: Some(folder) }), _) if folder.is_dir() => {
            (EncoderFiles::in_folder(&folder), Some(fingerprint))
        }
        _ => return Err(Error::NoTextEncoder),
    };
    Ok((files.0, clean, files.1))
}

fn check(encoder: &TextEncoder, expected: Option<&str>, width: i64, files: &EncoderFiles) -> Result<()> {
    let path = files.weights.clone();
    if encoder.width() != width {
        return Err(Error::TextWidth { path, found: encoder.width(), expected: width });
    }
    match expected {
        Some(expected) if expected != encoder.fingerprint() => {
            let (found, expected) = (encoder.fingerprint().to_owned(), expected.to_owned());
            Err(Error::OtherTextEncoder { path, found, expected })
        }
        _ => Ok(()),
    }
}
