//! Prompts → features. The encoder, which may be larger than the transformer, is loaded, used for all prompts of the run
//! and released before the transformer is loaded; features wait in an unnamed temporary file. So the two are never in
//! memory together, however many prompts there are.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context as _, Result};
use ar_model::{ArConfig, Conditioning, ConditioningConfig};
use backbones::t5::{EncoderFiles, TextDescription, TextEncoder, TextFeatures, WhichEncoder};
use base::{Precision, Progress as _};
use libtorch_ext::bytes::{tensor_from_bytes, with_bytes};
use tch::{Device, Kind, Tensor};

use super::provenance::ModelId;
use super::subject::Prompt;
use crate::context::Context;
use crate::failure::Failure;
use crate::settings::models::Location;

/// The features of a run's prompts.
pub struct Texts {
    file: File,
    ends: Vec<u64>, // positions with text, summed up to each prompt
    width: i64,
    length: i64,
    kind: Kind,
    negative: Option<Tensor>, // (L, C)
    device: Device,
    /// The encoder as a PNG remembers it.
    pub encoder: ModelId,
}

/// What decides the features of a run.
pub struct Request<'a> {
    /// All prompts, in order.
    pub prompts: &'a [&'a Prompt],
    /// What the pictures are to be unlike, in place of the model's own null condition.
    pub negative: Option<&'a str>,
    /// The encoder's folder, where one is named.
    pub encoder: Option<&'a Path>,
    /// Of the transformer, which decides that of the encoder.
    pub precision: Precision,
}

impl Texts {
    /// Encodes every prompt with the encoder that goes with the transformer.
    pub fn encode(request: &Request, model: &Location, device: Device, context: &Context) -> Result<Self> {
        let (length, width) = sizes(&model.config()?)?;
        let (files, clean, expected) = which(request.encoder, model)?;
        let kind = kind(request.precision);
        let encoder = TextEncoder::open(&files, length, clean, device, kind)?;
        check(&encoder, expected.as_deref(), width, &files)?;
        context.printer.note(&format!("text encoder: `{}`", files.weights.display()));
        let mut texts = Texts {
            file: tempfile::tempfile().context("cannot make a temporary file for the prompts' features")?,
            ends: vec![],
            width,
            length,
            kind,
            negative: None,
            device,
            encoder: ModelId {
                name: files.weights.display().to_string(),
                weights: None,
                fingerprint: encoder.fingerprint().to_owned(),
            },
        };
        texts.fill(request.prompts, &encoder, context)?;
        if let Some(text) = request.negative {
            texts.negative = encoder.encode(&[text])?.texts().pop();
        }
        Ok(texts)
    }

    fn fill(&mut self, prompts: &[&Prompt], encoder: &TextEncoder, context: &Context) -> Result<()> {
        let mut out = BufWriter::new(self.file.try_clone()?);
        let mut progress = context.printer.clone();
        progress.start("prompts", Some(prompts.len() as u64));
        let mut cut = 0;
        for prompt in prompts {
            cut += u64::from(encoder.cuts(&prompt.text)?);
            let features = encoder.encode(&[&prompt.text])?.texts().remove(0).to_device(Device::Cpu);
            self.ends.push(self.ends.last().unwrap_or(&0) + features.size()[0] as u64);
            with_bytes(&features.contiguous(), |bytes| out.write_all(bytes))?
                .context("cannot write the prompts' features to the temporary folder")?;
            progress.advance(1);
        }
        progress.finish();
        out.flush().context("cannot write the prompts' features to the temporary folder")?;
        if cut > 0 {
            let n = self.length;
            context.printer.warning(&format!(
                "{cut} of the prompts are longer than {n} tokens; the rest of them is not used"
            ));
        }
        Ok(())
    }

    /// The conditions of some prompts.
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

    fn read(&self, place: usize) -> Result<Tensor> {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        let rows = self.ends[place] - start;
        let line = self.width as u64 * self.kind.elt_size_in_bytes() as u64;
        let mut bytes = vec![0; (rows * line) as usize];
        self.file
            .read_exact_at(&mut bytes, start * line)
            .context("cannot read the prompts' features back")?;
        Ok(tensor_from_bytes(&bytes, &[rows as i64, self.width], self.kind)?)
    }
}

/// Kind of the encoder's weights and activations beside a transformer of this precision: T5's activations leave the
/// range of fp16, and 8-bit weights are for decoding alone.
fn kind(transformer: Precision) -> Kind {
    match transformer {
        Precision::Bf16 => Kind::BFloat16,
        Precision::Fp32 | Precision::Fp16 | Precision::Int8 => Kind::Float,
    }
}

/// Positions and width that the transformer takes.
fn sizes(config: &ArConfig) -> Result<(i64, i64)> {
    match config.conditioning {
        ConditioningConfig::Text { length, feature_width } => Ok((length, feature_width)),
        ConditioningConfig::Class { .. } => Err(Failure::new("the model draws classes, not prompts")
            .hint("`--class` names what to draw")
            .into()),
    }
}

/// The encoder's files, whether it is given cleaned texts, and the fingerprint it must have.
fn which(given: Option<&Path>, model: &Location) -> Result<(EncoderFiles, bool, Option<String>)> {
    let described = match model {
        Location::Directory(dir) => TextDescription::in_directory(dir)?,
        Location::Files { .. } => None,
    };
    let clean = described.as_ref().is_none_or(|d| d.clean);
    let files = match (given, described.map(|d| d.encoder), model) {
        (Some(folder), Some(WhichEncoder::Inside), _) => {
            let message =
                format!("the model has a text encoder of its own; `{}` has no place in it", folder.display());
            return Err(Failure::new(message).hint("leave `--text-encoder` out").into());
        }
        (None, Some(WhichEncoder::Inside), Location::Directory(dir)) => (EncoderFiles::inside(dir), None),
        (Some(folder), Some(WhichEncoder::Outside { fingerprint, .. }), _) => {
            (EncoderFiles::in_folder(folder), Some(fingerprint))
        }
        (Some(folder), None, _) => (EncoderFiles::in_folder(folder), None),
        (None, Some(WhichEncoder::Outside { fingerprint, folder: Some(folder) }), _) if folder.is_dir() => {
            (EncoderFiles::in_folder(&folder), Some(fingerprint))
        }
        _ => {
            return Err(Failure::new("the model does not say where its text encoder is")
                .hint("name its folder: `--text-encoder DIR`; LlamaGen's models take FLAN-T5-XL")
                .into());
        }
    };
    Ok((files.0, clean, files.1))
}

fn check(encoder: &TextEncoder, expected: Option<&str>, width: i64, files: &EncoderFiles) -> Result<()> {
    let path = files.weights.display();
    if encoder.width() != width {
        let message =
            format!("`{path}` makes features of width {}, the model takes {width}", encoder.width());
        return Err(Failure::new(message)
            .hint("LlamaGen's models take FLAN-T5-XL, whose width is 2048")
            .into());
    }
    match expected {
        Some(expected) if expected != encoder.fingerprint() => {
            let found = encoder.fingerprint();
            let message = format!("`{path}` is text encoder {found}; the model was trained with {expected}");
            Err(Failure::new(message).hint("name the right one with `--text-encoder DIR`").into())
        }
        _ => Ok(()),
    }
}
