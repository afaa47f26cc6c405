//! Records of a data set, and its interface.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base::hash::Sha256;
use image::RgbImage;

use crate::{Class, Result, Stored};

/// Label of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nothing.
    None,
    /// A class index, in the numbering of the data set's [`Dataset::classes`].
    Class(i64),
    /// A caption.
    Caption(String),
}

/// One image with its name and label.
#[derive(Debug, Clone)]
pub struct Record {
    /// Unique within the data set: a relative path, or a shard member's name without its extension.
    pub key: String,
    /// 8-bit RGB, as stored (not resized).
    pub image: RgbImage,
    /// Its label.
    pub target: Target,
    /// Form of the pixels in its file.
    pub stored: Stored,
}

/// Images with random access. Implementations may be read from many threads at once.
pub trait Dataset: Send + Sync {
    /// The number of records.
    fn len(&self) -> usize;
    /// True if it is empty; the constructors of this crate refuse that.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The record's name. `index` must be below [`Dataset::len`].
    fn key(&self, index: usize) -> String;
    /// The record's label, without decoding its image.
    fn target(&self, index: usize) -> Target;
    /// Reads and decodes the record.
    fn get(&self, index: usize) -> Result<Record>;
    /// The classes by ascending index, also those that no record has but the data set knows; empty
    /// if the records have none.
    fn classes(&self) -> &[Class];
    /// Files of the records: one for each, or shards and archives.
    fn files(&self) -> Vec<PathBuf>;
    /// One-line summary: format, number of records and of classes.
    fn describe(&self) -> String;
    /// Files beside the records that are not records, if the form has such files.
    fn left_out(&self) -> &[LeftOut] {
        &[]
    }
}

/// A file that is not read, or cannot be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// Its name, in the manner of [`Record::key`].
    pub name: String,
    /// Why; where there is more to say, a general word comes first, then `: `.
    pub reason: String,
}

impl LeftOut {
    /// The general word of the reason, by which they are counted.
    pub fn kind(&self) -> &str {
        self.reason.split_once(": ").map_or(self.reason.as_str(), |(kind, _)| kind)
    }
}

/// `27 files were left out (3 hidden, 24 not named like an image)`, if there are any.
pub fn count_left_out<'a>(files: impl IntoIterator<Item = &'a LeftOut>) -> Option<String> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    files.into_iter().for_each(|file| *kinds.entry(file.kind()).or_default() += 1);
    let n: usize = kinds.values().sum();
    let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    let files = if n == 1 { "file was" } else { "files were" };
    (n > 0).then(|| format!("{n} {files} left out ({})", kinds.join(", ")))
}

/// Hex hash (16 digits) of all keys and labels in order: two data sets with the same one hold the
/// same records.
pub fn fingerprint(dataset: &dyn Dataset) -> String {
    let mut hash = Sha256::default();
    for i in 0..dataset.len() {
        hash.update(dataset.key(i));
        hash.update(match dataset.target(i) {
            Target::None => "\0none\0".to_owned(),
            Target::Class(c) => format!("\0class {c}\0"),
            Target::Caption(text) => format!("\0caption {text}\0"),
        });
    }
    hash.fingerprint()
}
