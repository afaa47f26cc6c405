//! A text encoder with its tokenizer, from files.

use std::path::{Path, PathBuf};

use base::hash::Sha256;
use base::{Build, Vars};
use tch::{Device, Kind};
use weights::{Checkpoint, KeyMap, TensorSource, Want};

use super::caption::clean_caption;
use super::condition::{TextFeatures, left_pad};
use super::config::T5Config;
use super::model::T5Encoder;
use super::text::TextTokenizer;
use crate::{Error, Result};

/// Paths of an encoder's three parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderFiles {
    /// `config.json`.
    pub config: PathBuf,
    /// A folder or file of [`TextTokenizer::open`].
    pub tokenizer: PathBuf,
    /// A checkpoint, or a folder that holds one.
    pub weights: PathBuf,
    /// Prefix of the encoder's names in the checkpoint; tensors without it are another network's.
    pub prefix: Option<&'static str>,
}

impl EncoderFiles {
    /// A folder in Hugging Face's layout: `config.json`, `tokenizer.json` or `spiece.model`,
    /// weights in safetensors or `.bin`, in one file or in shards.
    pub fn in_folder(folder: &Path) -> Self {
        EncoderFiles {
            config: folder.join("config.json"),
            tokenizer: folder.to_owned(),
            weights: folder.to_owned(),
            prefix: None,
        }
    }
}

/// Captions → features, frozen.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: TextTokenizer,
    encoder: T5Encoder,
    device: Device,
    clean: bool,
    fingerprint: String,
}

impl TextEncoder {
    /// Opens an encoder that cuts texts to `length` tokens and, if `clean`, cleans them as
    /// published first. `kind` is the dtype of weights and activations; fp16 is refused, since T5's
    /// activations leave its range.
    ///
    /// # Errors
    /// Returns an error if a file is missing, or does not fit the others.
    pub fn open(files: &EncoderFiles, length: i64, clean: bool, device: Device, kind: Kind) -> Result<Self> {
        if kind == Kind::Half {
            let (expected, found) = ("fp32 or bf16".into(), "fp16, whose range T5 leaves".into());
            return Err(Error::Input { what: "precision of the text encoder", expected, found });
        }
        let config = T5Config::read(&files.config)?;
        let tokenizer = TextTokenizer::open(&files.tokenizer, length)?;
        if tokenizer.vocab_size() > config.vocab_size {
            let (has, takes) = (tokenizer.vocab_size(), config.vocab_size);
            let why =
                format!("it has {has} entries, the encoder of `{}` takes {takes}", files.config.display());
            return Err(Error::TextTokenizer { path: files.tokenizer.clone(), why });
        }
        let (encoder, source) = T5Encoder::open(&config, &files.weights, files.prefix, device, kind)?;
        let fingerprint = fingerprint(&files.tokenizer, source.as_ref(), files.prefix)
            .map_err(|e| load_error(&files.weights, e))?;
        Ok(TextEncoder { tokenizer, encoder, device, clean, fingerprint })
    }

    /// Width of the features (C).
    pub fn width(&self) -> i64 {
        self.encoder.config().d_model
    }

    /// Positions of a text (T).
    pub fn length(&self) -> i64 {
        self.tokenizer.length()
    }

    /// Whether texts are cleaned first.
    pub fn cleans(&self) -> bool {
        self.clean
    }

    /// Hash of weights and tokenizer, whatever precision they were loaded in.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether a caption has more tokens than are used.
    ///
    /// # Errors
    /// Returns an error as [`TextEncoder::encode`] does.
    pub fn cuts(&self, caption: &str) -> Result<bool> {
        self.tokenizer.cuts(&prepare(caption, self.clean)?)
    }

    /// Captions → features, padded on the left. Each goes through the network alone: products of
    /// matrices round differently from one number of rows to another, and a caption's features must
    /// not depend on its neighbours.
    ///
    /// # Errors
    /// Returns an error if there are no captions, one cannot be cleaned or tokenized, or features
    /// are not finite.
    pub fn encode<S: AsRef<str>>(&self, captions: &[S]) -> Result<TextFeatures> {
        let texts: Vec<String> =
            captions.iter().map(|c| prepare(c.as_ref(), self.clean)).collect::<Result<_>>()?;
        let tokens = self.tokenizer.encode(&texts)?;
        let (ids, mask) = (tokens.ids.to_device(self.device), tokens.mask.to_device(self.device));
        let rows: Vec<_> = tch::no_grad(|| {
            (0..ids.size()[0])
                .map(|i| self.encoder.forward(&ids.narrow(0, i, 1), &mask.narrow(0, i, 1)))
                .collect()
        });
        for (row, caption) in rows.iter().zip(captions) {
            if !bool::try_from(row.isfinite().all()).unwrap_or(false) {
                return Err(Error::CaptionNotFinite { caption: caption.as_ref().to_owned() });
            }
        }
        Ok(left_pad(&tch::Tensor::cat(&rows, 0), &mask))
    }
}

impl T5Encoder {
    /// Fills an encoder from a checkpoint, or a folder that holds one, in Hugging Face's names, and
    /// hands over what it was filled from. With a `prefix`, from the tensors whose names begin with
    /// it.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or its tensors are not exactly an encoder's.
    pub fn open(
        config: &T5Config,
        checkpoint: &Path,
        prefix: Option<&str>,
        device: Device,
        kind: Kind,
    ) -> Result<(Self, Box<dyn TensorSource>)> {
        let failed = |e| load_error(checkpoint, e);
        let vars = Vars::new(device, kind, Build::Empty);
        let encoder = T5Encoder::new(&vars.root(), config);
        let source = Checkpoint::open(checkpoint).and_then(|c| c.source(Want::Auto)).map_err(failed)?;
        weights::load(&vars, source.as_ref(), &key_map(source.as_ref(), prefix)).map_err(failed)?;
        Ok((encoder, source))
    }
}

fn load_error(path: &Path, source: weights::Error) -> Error {
    Error::Load { network: "T5".into(), path: path.to_owned(), source: Box::new(source) }
}

/// Tokenizer's input for a caption: cleaned as published, or unchanged.
///
/// # Errors
/// Returns an error as [`clean_caption`] does.
pub fn prepare(caption: &str, clean: bool) -> Result<String> {
    if clean { clean_caption(caption) } else { Ok(caption.to_owned()) }
}

/// Hugging Face's names. The embedding is stored as `shared`, as the encoder's own, or as both.
fn key_map(source: &dyn TensorSource, prefix: Option<&str>) -> KeyMap {
    if let Some(prefix) = prefix {
        let ours = format!("{prefix}.**");
        return KeyMap::identity().rename(&ours, "**").drop("**", "not the text encoder's");
    }
    let map =
        KeyMap::identity().drop("decoder.**", "the decoder").drop("lm_head.weight", "the decoder's output");
    match source.info("shared.weight") {
        Some(_) => map.drop("encoder.embed_tokens.weight", "the same as `shared.weight`"),
        None => map.rename("encoder.embed_tokens.weight", "shared.weight"),
    }
}

/// Hash of everything that determines a feature, except the length and the cleaning. Reads all
/// weights.
fn fingerprint(tokenizer: &Path, source: &dyn TensorSource, prefix: Option<&str>) -> weights::Result<String> {
    let mut hash = Sha256::default();
    hash.update(match prefix {
        None => weights::fingerprint_source(source)?,
        Some(prefix) => {
            let names = source.names().into_iter().filter(|n| n.starts_with(prefix));
            let all: Vec<_> = names
                .map(|n| Ok((n.to_owned(), source.read(n, Device::Cpu)?)))
                .collect::<weights::Result<_>>()?;
            weights::fingerprint(&all)?
        }
    });
    for name in ["tokenizer.json", "spiece.model"] {
        if let Ok(bytes) = std::fs::read(tokenizer.join(name)) {
            hash.update(bytes);
            break;
        }
    }
    Ok(hash.fingerprint())
}
