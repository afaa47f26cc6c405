//! Our code shards: `codes-00000-of-000NN.safetensors` with `codes (R, A, N) u16` and `labels (R,)
//! i64`, beside one `index.json` and a `classes.tsv`. Of captioned images also `captions u8`, UTF-8
//! one after the other, and `caption_ends (R,) i64`, where each ends.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::{CodeRecord, CodeSource, TokenizerId};
use crate::texts::{ANY, Texts, open_shard, read_header, read_i64, tensor};
use crate::{Class, ClassTable, Error, Result};

pub(super) const INDEX: &str = "index.json";
pub(super) const CLASSES: &str = "classes.tsv";
pub(super) const CAPTIONS: &str = "captions";
pub(super) const CAPTION_ENDS: &str = "caption_ends";

/// `index.json`: what a folder of code shards holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeIndex {
    /// Tokenizer of the codes.
    pub tokenizer: TokenizerId,
    /// The augmentation of each view, such as `center` or `ten-crop 1.1: 3`; A of them.
    pub views: Vec<String>,
    /// Precision of the tokenizer.
    pub precision: String,
    /// The number of records.
    pub records: usize,
    /// Images that could not be decoded and are missing (`skipped.tsv` names them).
    pub skipped: usize,
    /// Description of the data, as free text.
    pub data: String,
    /// The shards in order.
    pub shards: Vec<ShardEntry>,
}

impl CodeIndex {
    /// Refuses sizes that no run writes.
    fn check(&self) -> std::result::Result<(), String> {
        let TokenizerId { codebook_size, num_tokens, .. } = self.tokenizer;
        if codebook_size < 1 || num_tokens < 1 || self.views.is_empty() {
            let views = self.views.len();
            return Err(format!(
                "{views} views of {num_tokens} codes from a codebook of {codebook_size}: all must be positive"
            ));
        }
        Ok(())
    }
}

/// One shard in the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// Its file name.
    pub file: String,
    /// Its number of records, R.
    pub records: usize,
}

/// Reader of code shards. Labels are kept in memory; codes are read from the disk, one row at a
/// time.
#[derive(Debug)]
pub struct CodeShards {
    root: PathBuf,
    index: CodeIndex,
    classes: Vec<Class>,
    shards: Vec<Shard>,
    starts: Vec<usize>, // first record of each shard
}

#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    file: File,
    codes_at: u64,
    pub(super) labels: Vec<i64>,
    captions: Option<Texts>,
}

impl CodeShards {
    /// Opens a finished folder and checks every shard's header against the index.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join(INDEX);
        let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
        let index: CodeIndex = serde_json::from_str(&text)
            .map_err(|e| Error::malformed(&path, format!("not an index of code shards: {e}")))?;
        index.check().map_err(|e| Error::malformed(&path, e))?;
        let classes = read_classes(root)?;
        let mut set = CodeShards { root: root.to_owned(), classes, shards: vec![], starts: vec![], index };
        let mut start = 0;
        for entry in &set.index.shards {
            let shard = Shard::open(root, &entry.file, &set.index.tokenizer, set.index.views.len())?;
            if shard.labels.len() != entry.records {
                let message =
                    format!("expected {} records by the index, found {}", entry.records, shard.labels.len());
                return Err(Error::malformed(&shard.path, message));
            }
            set.starts.push(start);
            start += entry.records; // each is as many as there are rows on the disk
            set.shards.push(shard);
        }
        if start != set.index.records || start == 0 {
            let message = format!("it says {} records, its shards hold {start}", set.index.records);
            return Err(Error::malformed(&path, message));
        }
        Ok(set)
    }

    /// The index.
    pub fn index(&self) -> &CodeIndex {
        &self.index
    }

    /// All labels in record order.
    pub fn labels(&self) -> impl Iterator<Item = i64> {
        self.shards.iter().flat_map(|s| s.labels.iter().copied())
    }
}

impl Shard {
    pub(super) fn open(root: &Path, name: &str, tokenizer: &TokenizerId, views: usize) -> Result<Self> {
        let (path, file) = open_shard(root, name)?;
        let (start, meta) = read_header(&file, &path)?;
        let sizes = [ANY, Some(views), Some(tokenizer.num_tokens as usize)];
        let codes = tensor(&meta, &path, "codes", Dtype::U16, &sizes)?;
        let records = codes.shape[0];
        let labels = tensor(&meta, &path, "labels", Dtype::I64, &[Some(records)])?;
        let labels = read_i64(&file, &path, start, labels)?;
        let codes_at = start + codes.data_offsets.0 as u64;
        let captions = match meta.info(CAPTIONS) {
            Some(_) => {
                let names = (CAPTIONS, CAPTION_ENDS);
                Some(Texts::read((&file, &path), (start, &meta), names, Some(records))?)
            }
            None => None,
        };
        Ok(Shard { path, file, codes_at, labels, captions })
    }

    /// Row `row` of the (R·A, N) matrix of codes.
    fn row(&self, row: usize, tokenizer: &TokenizerId) -> Result<Vec<i64>> {
        let n = tokenizer.num_tokens as usize;
        let mut bytes = vec![0; n * 2];
        let at = self.codes_at + (row * n * 2) as u64;
        self.file.read_exact_at(&mut bytes, at).map_err(Error::read(&self.path))?;
        let codes: Vec<i64> =
            bytes.chunks_exact(2).map(|b| i64::from(u16::from_le_bytes([b[0], b[1]]))).collect();
        match codes.iter().find(|c| **c >= tokenizer.codebook_size) {
            None => Ok(codes),
            Some(c) => {
                let message =
                    format!("code {c} in row {row} is outside the codebook of {}", tokenizer.codebook_size);
                Err(Error::malformed(&self.path, message))
            }
        }
    }
}

/// The classes noted beside the codes, if any.
pub(super) fn read_classes(root: &Path) -> Result<Vec<Class>> {
    let path = root.join(CLASSES);
    if path.is_file() { Ok(ClassTable::read(&path)?.classes().cloned().collect()) } else { Ok(vec![]) }
}

impl CodeSource for CodeShards {
    fn len(&self) -> usize {
        self.index.records
    }

    fn views(&self) -> usize {
        self.index.views.len()
    }

    fn num_tokens(&self) -> usize {
        self.index.tokenizer.num_tokens as usize
    }

    fn read(&self, index: usize, view: usize) -> Result<CodeRecord> {
        let at = self.starts.partition_point(|s| *s <= index) - 1;
        let (shard, row) = (&self.shards[at], index - self.starts[at]);
        let codes = shard.row(row * self.views() + view, &self.index.tokenizer)?;
        Ok(CodeRecord { codes, label: shard.labels[row], caption: self.caption(index)? })
    }

    fn caption(&self, index: usize) -> Result<String> {
        let at = self.starts.partition_point(|s| *s <= index) - 1;
        let shard = &self.shards[at];
        shard
            .captions
            .as_ref()
            .map_or(Ok(String::new()), |texts| texts.get(&shard.file, &shard.path, index - self.starts[at]))
    }

    fn tokenizer(&self) -> Option<&TokenizerId> {
        Some(&self.index.tokenizer)
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn describe(&self) -> String {
        let CodeIndex { records, views, tokenizer, .. } = &self.index;
        format!(
            "{}: {records} records x {} views of {} codes, tokenizer {}",
            self.root.display(),
            views.len(),
            tokenizer.num_tokens,
            tokenizer.fingerprint
        )
    }
}
