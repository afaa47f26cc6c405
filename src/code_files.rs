//! Codes in safetensors files, as `gen encode` writes them.

use std::path::Path;

use anyhow::{Context as _, Result};
use base::Codes;
use tch::{Device, Kind, Tensor};
use weights::{Checkpoint, TensorSource, Want};

use crate::failure::Failure;

/// The metadata key of the tokenizer's fingerprint.
pub const TOKENIZER: &str = "tokenizer";

/// Names that codes go by: ours, the tokenizer's and the transformer's official ones.
const CODES: [&str; 3] = ["codes", "indices", "tokens"];
const CLASSES: [&str; 2] = ["class_ids", "labels"];

/// What such a file holds.
#[derive(Debug)]
pub struct CodeFile {
    /// (B, N).
    pub codes: Codes,
    /// (B) int64.
    pub classes: Option<Tensor>,
    /// Fingerprint of the tokenizer that made the codes.
    pub tokenizer: Option<String>,
}

impl CodeFile {
    /// Reads all of it.
    pub fn read(path: &Path) -> Result<Self> {
        let file = Checkpoint::open(path)?;
        let source = file.source(Want::Auto)?;
        let codes = integers(source.as_ref(), &CODES)?.ok_or_else(|| {
            let shown = path.display();
            Failure::new(format!("`{shown}` holds no tensor `codes`"))
                .hint(format!("`gen inspect {shown}` lists what it contains; `gen encode` writes such files"))
        })?;
        let what = || format!("the codes of `{}`", path.display());
        Ok(CodeFile {
            codes: Codes::new(codes).with_context(what)?,
            classes: integers(source.as_ref(), &CLASSES)?,
            tokenizer: file.metadata().get(TOKENIZER).and_then(|v| v.as_str()).map(str::to_owned),
        })
    }

    /// The number of rows.
    pub fn len(&self) -> i64 {
        self.codes.tensor().size()[0]
    }

    /// Some rows of the codes.
    pub fn rows(&self, from: i64, count: i64) -> Result<Codes> {
        Ok(Codes::new(self.codes.tensor().narrow(0, from, count))?)
    }
}

/// Refuses codes (B, N) that a transformer does not take.
pub fn check_codes(codes: &Codes, num_tokens: i64, vocab_size: i64) -> Result<()> {
    let size = codes.tensor().size();
    if size[1] != num_tokens {
        return Err(
            Failure::new(format!("the codes are {size:?}, and the model takes (B, {num_tokens})")).into()
        );
    }
    match codes.range() {
        None => Err(Failure::new("there are no codes in the file").into()),
        Some((low, high)) if low < 0 || high >= vocab_size => {
            let message = format!("the codes are in {low}..={high}, and the model knows 0..{vocab_size}");
            Err(Failure::new(message).hint("was another tokenizer used?").into())
        }
        Some(_) => Ok(()),
    }
}

/// The first of the names that is there, as int64.
fn integers(source: &dyn TensorSource, names: &[&str]) -> Result<Option<Tensor>> {
    let Some(name) = names.iter().find(|name| source.info(name).is_some()) else { return Ok(None) };
    let tensor = source.read(name, Device::Cpu)?;
    match tensor.kind() {
        Kind::Int64 | Kind::Int | Kind::Int16 | Kind::Uint8 => Ok(Some(tensor.to_kind(Kind::Int64))),
        other => {
            let message =
                format!("tensor `{name}` of {}: expected integers, found {other:?}", source.origin());
            Err(Failure::new(message).into())
        }
    }
}

/// Consecutive ranges (start, length) of at most `size` that cover `0..len`.
pub fn batches(len: i64, size: i64) -> impl Iterator<Item = (i64, i64)> {
    (0..len).step_by(usize::try_from(size).unwrap_or(1).max(1)).map(move |from| (from, size.min(len - from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_everything_once() {
        assert_eq!(batches(7, 3).collect::<Vec<_>>(), [(0, 3), (3, 3), (6, 1)]);
        assert_eq!(batches(0, 3).count(), 0);
    }
}
