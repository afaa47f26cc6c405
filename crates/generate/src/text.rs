//! Prompts → features. The encoder, which may be larger than the transformer, is loaded, used for all prompts of
//! the run and released before the transformer is loaded; the features wait in an unnamed temporary file. So the
//! two are never in memory together, however many prompts there are.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use ar_model::{ArConfig, Conditioning, ConditioningConfig};
use backbones::t5::{EncoderFiles, TextDescription, TextEncoder, TextFeatures, WhichEncoder};
use base::{Precision, Progress};
use choices::ModelChoice;
use libtorch_ext::bytes::{tensor_from_bytes, with_bytes};
use tch::{Device, Kind, Tensor};

use crate::condition::Prompt;
use crate::config::{ModelsConfig, TextConfig};
use crate::error::{Error, Result};
use crate::locate::Location;
use crate::provenance::ModelId;

/// Features of a run's prompts.
pub struct PromptFeatures {
    file: File,
    ends: Vec<u64>, // positions with text, summed up to each prompt
    width: i64,
    length: i64,
    kind: Kind,
    negative: Option<Tensor>, // (L, C)
    device: Device,
    /// Identity of the encoder.
    pub encoder: ModelId,
    /// The negative prompt.
    pub negative_prompt: Option<String>,
}

impl PromptFeatures {
    /// Encodes every prompt with the encoder that goes with the transformer.
    ///
    /// # Errors
    /// Returns an error if the encoder is unknown, does not fit the transformer, or refuses a prompt.
    pub fn encode(config: &TextConfig, models: &ModelsConfig, progress: &mut dyn Progress) -> Result<Self> {
        let (length, width) = sizes(&models.pair.ar_config()?)?;
        let (files, clean, expected) = which(config.encoder.as_deref(), &models.pair.transformer)?;
        let (device, kind) = (models.device, kind(models.precision));
        let encoder = TextEncoder::open(&files, length, clean, device, kind)?;
        check(&encoder, expected.as_deref(), width, &files)?;
        progress.message(&format!("text encoder: `{}`", files.weights.display()));
        let (file, ends) = store(&config.prompts, &encoder, progress)?;
        let negative = match &config.negative {
            Some(text) => encoder.encode(&[text])?.texts().pop(),
            None => None,
        };
        let name = ModelChoice::named(files.weights.display().to_string());
        Ok(PromptFeatures {
            file,
            ends,
            width,
            length,
            kind,
            negative,
            device,
            encoder: ModelId::of(&name, encoder.fingerprint().to_owned()),
            negative_prompt: config.negative.clone(),
        })
    }

    /// (B) conditions of some prompts.
    ///
    /// # Errors
    /// Returns an error if their features cannot be read back.
    pub fn conditions(&self, prompts: &[&Prompt]) -> Result<Conditioning> {
        let texts = prompts.iter().map(|p| self.read(p.place)).collect::<Result<Vec<_>>>()?;
        Ok(self.padded(&texts))
    }

    /// The condition of the negative prompt.
    pub fn negative(&self) -> Option<Conditioning> {
        self.negative.as_ref().map(|text| self.padded(&[text.to_device(Device::Cpu)]))
    }

    fn padded(&self, texts: &[Tensor]) -> Conditioning {
        let TextFeatures { features, mask } = TextFeatures::from_texts(texts, self.length);
        Conditioning::Text { features: features.to_device(self.device), mask: mask.to_device(self.device) }
    }

    /// (L, C) features of the prompt at `place`.
    fn read(&self, place: usize) -> Result<Tensor> {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        let rows = self.ends[place] - start;
        let line = self.width as u64 * self.kind.elt_size_in_bytes() as u64;
        let mut bytes = vec![0; (rows * line) as usize];
        let what = || "cannot read the prompts' features back".to_owned();
        self.file.read_exact_at(&mut bytes, start * line).map_err(Error::io(what))?;
        Ok(tensor_from_bytes(&bytes, &[rows as i64, self.width], self.kind)?)
    }
}

/// Writes the prompts' features to a temporary file, one after the other. Returns it with the numbers of
/// positions up to each prompt.
fn store(prompts: &[Prompt], encoder: &TextEncoder, progress: &mut dyn Progress) -> Result<(File, Vec<u64>)> {
    let what = || "cannot make a temporary file for the prompts' features".to_owned();
    let mut out = BufWriter::new(tempfile::tempfile().map_err(Error::io(what))?);
    let failed = || Error::io(|| "cannot write the prompts' features to the temporary folder".to_owned());
    progress.start("prompts", Some(prompts.len() as u64));
    let (mut ends, mut cut) = (vec![], 0);
    for prompt in prompts {
        cut += u64::from(encoder.cuts(&prompt.text)?);
        let features = encoder.encode(&[&prompt.text])?.texts().remove(0).to_device(Device::Cpu);
        ends.push(ends.last().unwrap_or(&0) + features.size()[0] as u64);
        with_bytes(&features.contiguous(), |bytes| out.write_all(bytes))?.map_err(failed())?;
        progress.advance(1);
    }
    progress.finish();
    if cut > 0 {
        let n = encoder.length();
        progress
            .warn(&format!("{cut} of the prompts are longer than {n} tokens; the rest of them is not used"));
    }
    let file = out.into_inner().map_err(|e| failed()(e.into_error()))?;
    Ok((file, ends))
}

/// Dtype of the encoder beside a transformer of this precision: T5's activations leave the range of fp16, and
/// 8-bit weights are for decoding alone.
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
