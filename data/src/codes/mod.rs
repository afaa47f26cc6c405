//! Stored codes: what the tokenizer made of a data set, so that a transformer can be trained
//! without it.

mod loader;
mod npy;
mod shards;
mod writer;

use std::path::Path;
use std::sync::Arc;

use base::hash::Sha256;
use serde::{Deserialize, Serialize};

pub use loader::{CodeBatch, CodeLoader, CodeLoaderConfig};
pub use npy::{NpyCodes, NpyWriter};
pub use shards::{CodeIndex, CodeShards, ShardEntry};
pub use writer::{CodePlan, CodeWriter, PendingShard};

use crate::claim::PLAN;
use crate::{Class, Error, Result};

/// One record's codes in one view, and its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeRecord {
    /// N codes.
    pub codes: Vec<i64>,
    /// The class index, or [`crate::NO_CLASS`].
    pub label: i64,
    /// The caption; empty without one.
    pub caption: String,
}

/// Identity of a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerId {
    /// Hash of its weights and config.
    pub fingerprint: String,
    /// Codes are in `0..codebook_size`.
    pub codebook_size: i64,
    /// Codes per image, N.
    pub num_tokens: i64,
}

/// Codes with random access by record and view (an augmentation under which the record was
/// encoded).
pub trait CodeSource: Send + Sync {
    /// The number of records.
    fn len(&self) -> usize;
    /// True if it is empty; the constructors of this crate refuse that.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The number of views of each record, A.
    fn views(&self) -> usize;
    /// Codes per image, N.
    fn num_tokens(&self) -> usize;
    /// Reads a record; `index` and `view` must be in range.
    fn read(&self, index: usize, view: usize) -> Result<CodeRecord>;
    /// A record's caption; empty without one.
    fn caption(&self, index: usize) -> Result<String>;
    /// The tokenizer, if the files record it (the official layout does not).
    fn tokenizer(&self) -> Option<&TokenizerId>;
    /// The classes of the labels; empty if the files do not record them.
    fn classes(&self) -> &[Class];
    /// One-line summary.
    fn describe(&self) -> String;
}

/// Hex hash (16 digits) of the sizes, the tokenizer, and the codes and labels of some records
/// spread over the whole: enough to distinguish extractions without reading it all.
///
/// # Errors
/// Returns an error if a record cannot be read.
pub fn fingerprint(source: &dyn CodeSource) -> Result<String> {
    const PROBES: usize = 64;
    let mut hash = Sha256::default();
    let tokenizer = source.tokenizer().map_or("", |t| t.fingerprint.as_str());
    hash.update(format!("{} {} {} {tokenizer}", source.len(), source.views(), source.num_tokens()));
    for probe in 0..PROBES.min(source.len()) {
        let index = probe * source.len() / PROBES.min(source.len());
        let record = source.read(index, probe % source.views())?;
        hash.update(record.label.to_le_bytes());
        record.codes.iter().for_each(|code| hash.update(code.to_le_bytes()));
    }
    Ok(hash.fingerprint())
}

/// Opens stored codes: a folder of our shards (with `index.json`) or of the official layout
/// (`*_codes/` and `*_labels/`). Several folders are joined as further views of the same records,
/// which is how the ten-crops at 1.1 and at 1.05 are trained on together.
pub fn open_codes(paths: &[&Path]) -> Result<Arc<dyn CodeSource>> {
    let mut sources: Vec<Arc<dyn CodeSource>> = paths.iter().map(|p| open_one(p)).collect::<Result<_>>()?;
    match sources.len() {
        0 => Err(Error::Settings("no folder of codes is given".into())),
        1 => Ok(sources.remove(0)),
        _ => Ok(Arc::new(JoinedViews::new(sources)?)),
    }
}

fn open_one(path: &Path) -> Result<Arc<dyn CodeSource>> {
    if path.join(shards::INDEX).is_file() {
        return Ok(Arc::new(CodeShards::open(path)?));
    }
    if let Some((codes, labels)) = npy::folders(path)? {
        return Ok(Arc::new(NpyCodes::open(path, &codes, &labels)?));
    }
    let found = if path.join(PLAN).is_file() {
        "the extraction that writes it has not finished (no `index.json` yet)"
    } else {
        "neither `index.json` nor a pair of folders `*_codes` and `*_labels` is there"
    };
    let hints =
        vec!["`gen extract` makes code shards from images; run again, it goes on where it stopped".into()];
    Err(Error::NotCodes { path: path.to_owned(), found: found.into(), hints })
}

/// Records with the views of several sources.
struct JoinedViews {
    sources: Vec<Arc<dyn CodeSource>>,
}

impl JoinedViews {
    fn new(sources: Vec<Arc<dyn CodeSource>>) -> Result<Self> {
        let first = &sources[0];
        for other in &sources[1..] {
            let same = other.len() == first.len()
                && other.num_tokens() == first.num_tokens()
                && (other.tokenizer().is_none()
                    || first.tokenizer().is_none()
                    || other.tokenizer() == first.tokenizer());
            if !same {
                return Err(Error::Settings(format!(
                    "codes that do not belong together: {} and {}; they must have the same records, length and tokenizer",
                    first.describe(),
                    other.describe()
                )));
            }
            let (a, b) = (first.describe(), other.describe());
            crate::same_numbering((&a, first.classes()), (&b, other.classes()))?;
        }
        Ok(JoinedViews { sources })
    }
}

impl CodeSource for JoinedViews {
    fn len(&self) -> usize {
        self.sources[0].len()
    }

    fn views(&self) -> usize {
        self.sources.iter().map(|s| s.views()).sum()
    }

    fn num_tokens(&self) -> usize {
        self.sources[0].num_tokens()
    }

    fn read(&self, index: usize, mut view: usize) -> Result<CodeRecord> {
        let mut source = &self.sources[0];
        for s in &self.sources {
            source = s;
            if view < s.views() {
                break;
            }
            view -= s.views();
        }
        let record = source.read(index, view)?;
        let first = self.sources[0].read(index, 0)?;
        if (record.label, &record.caption) != (first.label, &first.caption) {
            let of = |r: &CodeRecord| format!("label {} and caption {:?}", r.label, r.caption);
            let message =
                format!("record {index} has {}, but {} in {}", of(&first), of(&record), source.describe());
            return Err(Error::Settings(message));
        }
        Ok(record)
    }

    fn caption(&self, index: usize) -> Result<String> {
        self.sources[0].caption(index)
    }

    fn tokenizer(&self) -> Option<&TokenizerId> {
        self.sources.iter().find_map(|s| s.tokenizer())
    }

    fn classes(&self) -> &[Class] {
        self.sources.iter().map(|s| s.classes()).find(|c| !c.is_empty()).unwrap_or(&[])
    }

    fn describe(&self) -> String {
        self.sources.iter().map(|s| s.describe()).collect::<Vec<_>>().join(" + ")
    }
}
