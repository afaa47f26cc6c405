//! Writes code shards so that an interrupted run goes on where it stopped.

use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use base::files::write_atomic;
use safetensors::{Dtype, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::shards::{CAPTION_ENDS, CAPTIONS, CLASSES, INDEX, Shard};
use super::{CodeIndex, ShardEntry, TokenizerId};
use crate::{Class, Error, Result, to_tsv};

pub(super) const PLAN: &str = "plan.json";
/// Codes are stored as u16.
const LARGEST_CODEBOOK: i64 = 1 << 16;

/// All that decides what a run writes. A folder is continued only by a run with an equal plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodePlan {
    /// Which tokenizer makes the codes.
    pub tokenizer: TokenizerId,
    /// The augmentation of each view.
    pub views: Vec<String>,
    /// The number of images.
    pub records: usize,
    /// Images per shard; the last has the rest.
    pub shard_size: usize,
    /// The kind of number the tokenizer computes in, since a few codes depend on it.
    pub precision: String,
    /// A hash of the images ([`crate::content_fingerprint`]).
    pub data_fingerprint: String,
    /// What is encoded, for people.
    pub data: String,
}

impl CodePlan {
    fn num_shards(&self) -> usize {
        self.records.div_ceil(self.shard_size)
    }

    fn validate(&self) -> Result<()> {
        let ok = self.records > 0 && self.shard_size > 0 && !self.views.is_empty();
        if !ok || !(1..=LARGEST_CODEBOOK).contains(&self.tokenizer.codebook_size) {
            return Err(Error::Settings(format!(
                "cannot store {} records in shards of {} with {} views and a codebook of {}: all must be positive, \
                 and the codebook at most {LARGEST_CODEBOOK}",
                self.records,
                self.shard_size,
                self.views.len(),
                self.tokenizer.codebook_size
            )));
        }
        Ok(())
    }

    /// The plan of the run that writes, or wrote, into `root`.
    pub(super) fn read(root: &Path) -> Result<Option<CodePlan>> {
        let path = root.join(PLAN);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
        serde_json::from_str(&text).map(Some).map_err(|e| Error::malformed(&path, format!("not a plan: {e}")))
    }

    /// Makes `root` if need be and notes the plan there. Refuses a folder that another plan, or something else, uses.
    pub(super) fn claim(&self, root: &Path) -> Result<()> {
        self.validate()?;
        std::fs::create_dir_all(root).map_err(Error::write(root))?;
        let refuse = |differences: String| Error::OtherCodes { path: root.to_owned(), differences };
        if let Some(begun) = CodePlan::read(root)? {
            let differences = begun.differences(self);
            return if differences.is_empty() { Ok(()) } else { Err(refuse(differences.join(", "))) };
        }
        if let Some(entry) = std::fs::read_dir(root).map_err(Error::read(root))?.next() {
            let name = entry.map_err(Error::read(root))?.file_name();
            return Err(refuse(format!("there is no `{PLAN}`, but `{}`", name.to_string_lossy())));
        }
        write_json(&root.join(PLAN), self)
    }

    /// Which settings differ, for the refusal to continue another run's folder.
    fn differences(&self, other: &CodePlan) -> Vec<&'static str> {
        let mut d = vec![];
        let mut note = |same: bool, what| {
            if !same {
                d.push(what)
            }
        };
        note(self.tokenizer == other.tokenizer, "the tokenizer");
        note(self.precision == other.precision, "the precision");
        note(self.views == other.views, "the augmentations");
        note(self.data_fingerprint == other.data_fingerprint && self.records == other.records, "the images");
        note(self.shard_size == other.shard_size, "the shard size");
        d
    }
}

/// A shard in the making.
#[derive(Debug)]
pub struct PendingShard {
    shard: usize,
    codes: Vec<u8>, // u16, little-endian, (R, A, N)
    labels: Vec<i64>,
    captions: Vec<u8>,
    caption_ends: Vec<i64>,
}

/// Writer of code shards. Each shard appears under its name only when it is complete.
#[derive(Debug)]
pub struct CodeWriter {
    root: PathBuf,
    plan: CodePlan,
}

impl CodeWriter {
    /// Begins or continues in `root`, which is created if need be.
    pub fn create(root: &Path, plan: CodePlan) -> Result<Self> {
        plan.claim(root)?;
        Ok(CodeWriter { root: root.to_owned(), plan })
    }

    /// What is written.
    pub fn plan(&self) -> &CodePlan {
        &self.plan
    }

    /// The numbers of the shards still to be written.
    pub fn missing(&self) -> Vec<usize> {
        (0..self.plan.num_shards()).filter(|i| !self.root.join(self.file(*i)).exists()).collect()
    }

    /// The images that belong into a shard.
    pub fn range(&self, shard: usize) -> Range<usize> {
        let start = shard * self.plan.shard_size;
        start..(start + self.plan.shard_size).min(self.plan.records)
    }

    /// The file for the names of images that cannot be decoded.
    pub fn skipped_list(&self) -> PathBuf {
        self.root.join("skipped.tsv")
    }

    fn file(&self, shard: usize) -> String {
        format!("codes-{shard:05}-of-{:05}.safetensors", self.plan.num_shards())
    }

    /// An empty shard to be filled record by record and given to [`CodeWriter::write`].
    pub fn begin(&self, shard: usize) -> PendingShard {
        PendingShard { shard, codes: vec![], labels: vec![], captions: vec![], caption_ends: vec![] }
    }

    /// Adds a record: its codes in every view, A·N of them, view after view; its caption may be empty.
    pub fn push(&self, pending: &mut PendingShard, codes: &[i64], label: i64, caption: &str) -> Result<()> {
        let TokenizerId { codebook_size, num_tokens, .. } = self.plan.tokenizer;
        let expected = self.plan.views.len() * num_tokens as usize;
        let in_range = codes.iter().all(|c| (0..codebook_size).contains(c));
        if codes.len() != expected || !in_range || pending.labels.len() >= self.range(pending.shard).len() {
            return Err(Error::Settings(format!(
                "shard {}: expected at most {} records of {expected} codes below {codebook_size}",
                pending.shard,
                self.range(pending.shard).len()
            )));
        }
        for &c in codes {
            let code = u16::try_from(c).expect("below a codebook of at most 65,536");
            pending.codes.extend(code.to_le_bytes());
        }
        pending.labels.push(label);
        pending.captions.extend(caption.as_bytes());
        pending.caption_ends.push(pending.captions.len() as i64);
        Ok(())
    }

    /// Writes a shard. It may hold fewer records than planned, if images could not be decoded.
    pub fn write(&self, pending: PendingShard) -> Result<()> {
        let path = self.root.join(self.file(pending.shard));
        let records = pending.labels.len();
        let bytes = |numbers: &[i64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let (labels, ends) = (bytes(&pending.labels), bytes(&pending.caption_ends));
        let shape = vec![records, self.plan.views.len(), self.plan.tokenizer.num_tokens as usize];
        let bad = |e: safetensors::SafeTensorError| Error::malformed(&path, e.to_string());
        let mut tensors = vec![
            ("codes", TensorView::new(Dtype::U16, shape, &pending.codes).map_err(bad)?),
            ("labels", TensorView::new(Dtype::I64, vec![records], &labels).map_err(bad)?),
        ];
        if !pending.captions.is_empty() {
            let (texts, shape) = (&pending.captions, vec![pending.captions.len()]);
            tensors.push((CAPTIONS, TensorView::new(Dtype::U8, shape, texts).map_err(bad)?));
            tensors.push((CAPTION_ENDS, TensorView::new(Dtype::I64, vec![records], &ends).map_err(bad)?));
        }
        let metadata = HashMap::from([("tokenizer".to_owned(), self.plan.tokenizer.fingerprint.clone())]);
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(bad)?;
        write_atomic(&path, |f| f.write_all(&bytes)).map_err(Error::write(&path))
    }

    /// True if a shard that is there holds records.
    ///
    /// # Errors
    /// A shard cannot be read.
    pub fn has_records(&self) -> Result<bool> {
        for file in (0..self.plan.num_shards()).map(|i| self.file(i)).filter(|f| self.root.join(f).exists()) {
            let shard = Shard::open(&self.root, &file, &self.plan.tokenizer, self.plan.views.len())?;
            if !shard.labels.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the index and the class names once no shard is missing.
    pub fn finish(&self, classes: &[Class]) -> Result<CodeIndex> {
        if let Some(i) = self.missing().first() {
            return Err(Error::Settings(format!("shard `{}` is still missing", self.file(*i))));
        }
        let mut shards = vec![];
        for file in (0..self.plan.num_shards()).map(|i| self.file(i)) {
            let shard = Shard::open(&self.root, &file, &self.plan.tokenizer, self.plan.views.len())?;
            shards.push(ShardEntry { file, records: shard.labels.len() });
        }
        let records = shards.iter().map(|s| s.records).sum();
        let CodePlan { tokenizer, views, precision, data, .. } = self.plan.clone();
        let skipped = self.plan.records - records;
        let index = CodeIndex { tokenizer, views, precision, records, skipped, data, shards };
        write_classes(&self.root, classes)?;
        write_json(&self.root.join(INDEX), &index)?;
        Ok(index)
    }
}

/// Notes the classes beside the codes, if there are any.
pub(super) fn write_classes(root: &Path, classes: &[Class]) -> Result<()> {
    if classes.is_empty() {
        return Ok(());
    }
    let path = root.join(CLASSES);
    write_atomic(&path, |f| f.write_all(to_tsv(classes).as_bytes())).map_err(Error::write(&path))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("plain data");
    write_atomic(path, |f| writeln!(f, "{text}")).map_err(Error::write(path))
}
