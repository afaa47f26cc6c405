//! Texts → tokens.

use std::path::Path;

use tch::Tensor;
use tokenizers::{Tokenizer, TruncationParams};

use super::spiece;
use crate::{Error, Result};

/// A text tokenizer with the length it cuts and pads to.
#[derive(Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    length: usize,
    pad: i64,
}

/// A batch of tokenized texts.
#[derive(Debug)]
pub struct Tokens {
    /// (B, T) int64, padded on the right.
    pub ids: Tensor,
    /// (B, T) int64: 1 where there is text.
    pub mask: Tensor,
}

pub(super) const PAD: &str = "<pad>";

impl TextTokenizer {
    /// Reads `tokenizer.json`, or else SentencePiece's `spiece.model`, of a folder; or one such
    /// file. Texts are cut to `length` tokens, the end's among them, and padded to it.
    ///
    /// # Errors
    /// Returns an error if neither file is there, or it holds no such tokenizer.
    pub fn open(path: &Path, length: i64) -> Result<Self> {
        let in_folder = |name: &str| path.join(name);
        let file = match path.is_dir() {
            false => path.to_owned(),
            true => ["tokenizer.json", "spiece.model"]
                .map(in_folder)
                .into_iter()
                .find(|f| f.is_file())
                .ok_or_else(|| bad(path, "the folder has neither `tokenizer.json` nor `spiece.model`"))?,
        };
        let bytes = std::fs::read(&file).map_err(|source| Error::Read { path: file.clone(), source })?;
        let description = match bytes.trim_ascii_start().starts_with(b"{") {
            true => String::from_utf8(bytes).map_err(|e| bad(&file, e))?,
            false => spiece::description(&bytes).map_err(|why| bad(&file, why))?,
        };
        Self::parse(&file, &description, length)
    }

    /// Reads the text of a `tokenizer.json`; `origin` is for messages.
    ///
    /// # Errors
    /// Returns an error as [`TextTokenizer::open`] does.
    pub fn parse(origin: &Path, description: &str, length: i64) -> Result<Self> {
        let mut tokenizer: Tokenizer = description.parse().map_err(|e| bad(origin, e))?;
        let pad = tokenizer.token_to_id(PAD).ok_or_else(|| bad(origin, format!("it has no {PAD}")))?;
        let length = usize::try_from(length).ok().filter(|n| *n > 0).ok_or_else(|| {
            bad(origin, format!("texts cannot be cut to {length} tokens; at least 1 is needed"))
        })?;
        tokenizer.with_padding(None);
        let cut = TruncationParams { max_length: length, ..Default::default() };
        tokenizer.with_truncation(Some(cut)).map_err(|e| bad(origin, e))?;
        let opened = TextTokenizer { tokenizer, length, pad: i64::from(pad) };
        if opened.ids("")?.is_empty() {
            return Err(bad(origin, "it appends no end to a text, so that an empty one would be nothing"));
        }
        Ok(opened)
    }

    /// The number of entries, added ones included.
    pub fn vocab_size(&self) -> i64 {
        self.tokenizer.get_vocab_size(true) as i64
    }

    /// T.
    pub fn length(&self) -> i64 {
        self.length as i64
    }

    /// The text that tokenizes so, as a file.
    ///
    /// # Errors
    /// Returns an error if it cannot be written as JSON, which does not happen to a tokenizer read
    /// from JSON.
    pub fn to_json(&self) -> Result<String> {
        let mut plain = self.tokenizer.clone();
        plain.with_truncation(None).map_err(|e| bad(Path::new("tokenizer.json"), e))?;
        plain.to_string(false).map_err(|e| bad(Path::new("tokenizer.json"), e))
    }

    /// (B, T) ids and mask; no text is nothing, an empty one is its end.
    ///
    /// # Errors
    /// Returns an error if there are no texts or one cannot be encoded.
    pub fn encode<S: AsRef<str>>(&self, texts: &[S]) -> Result<Tokens> {
        let (mut ids, mut mask) = (vec![], vec![]);
        for text in texts {
            let found = self.ids(text.as_ref())?;
            mask.extend((0..self.length).map(|i| i64::from(i < found.len())));
            ids.extend(found.iter().copied().chain(std::iter::repeat(self.pad)).take(self.length));
        }
        if texts.is_empty() {
            let (what, expected, found) = ("texts", "at least one".into(), "none".into());
            return Err(Error::Input { what, expected, found });
        }
        let shape = [-1, self.length as i64];
        Ok(Tokens { ids: Tensor::from_slice(&ids).view(shape), mask: Tensor::from_slice(&mask).view(shape) })
    }

    /// Whether a text has more tokens than the length.
    ///
    /// # Errors
    /// Returns an error if it cannot be encoded.
    pub fn cuts(&self, text: &str) -> Result<bool> {
        Ok(!self.encoding(text)?.get_overflowing().is_empty())
    }

    fn ids(&self, text: &str) -> Result<Vec<i64>> {
        Ok(self.encoding(text)?.get_ids().iter().map(|&id| i64::from(id)).collect())
    }

    fn encoding(&self, text: &str) -> Result<tokenizers::Encoding> {
        self.tokenizer.encode(text, true).map_err(|e| Error::Input {
            what: "text",
            expected: "a text that its vocabulary can spell".into(),
            found: format!("{text:?} ({e})"),
        })
    }
}

fn bad(path: &Path, why: impl ToString) -> Error {
    Error::TextTokenizer { path: path.to_owned(), why: why.to_string() }
}
