//! Writes code shards so that an interrupted run resumes where it stopped.

use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use base::files::{write_atomic, write_json};
use base::resume::ShardPlan;
use safetensors::{Dtype, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::shards::{CAPTION_ENDS, CAPTIONS, CLASSES, INDEX, Shard};
use super::{CodeIndex, ShardEntry, TokenizerId};
use crate::claim::claim;
use crate::{Class, Error, Result, to_tsv};

/// Codes are stored as u16.
const LARGEST_CODEBOOK: i64 = 1 << 16;

/// Settings that determine a run's output. Only a run with an equal plan continues a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodePlan {
    /// Tokenizer of the codes.
    pub tokenizer: TokenizerId,
    /// The augmentation of each view.
    pub views: Vec<String>,
    /// The number of images.
    pub records: usize,
    /// Images per shard; the last has the rest.
    pub shard_size: usize,
    /// Precision of the tokenizer, which a few codes depend on.
    pub precision: String,
    /// A hash of the images ([`crate::content_fingerprint`]).
    pub data_fingerprint: String,
    /// Description of the data, as free text.
    pub data: String,
}

impl CodePlan {
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

    /// Claims `root`, which is created if it is missing, for a run with this plan.
    pub(super) fn claim(&self, root: &Path) -> Result<()> {
        self.validate()?;
        let refusal = |differences| Error::OtherCodes { path: root.to_owned(), differences };
        claim(root, self, &["data"], setting_name, refusal)
    }
}

fn setting_name(key: &str) -> &'static str {
    match key {
        "tokenizer" => "the tokenizer",
        "precision" => "the precision",
        "views" => "the augmentations",
        "shard_size" => "the shard size",
        _ => "the images",
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
    plan: CodePlan,
    shards: ShardPlan,
}

impl CodeWriter {
    /// Begins or continues in `root`, which is created if it is missing.
    ///
    /// # Errors
    /// Returns an error if the folder belongs to another run, a file fails, or the plan stores
    /// nothing.
    pub fn create(root: &Path, plan: CodePlan) -> Result<Self> {
        plan.claim(root)?;
        let CodePlan { records, shard_size, .. } = plan;
        let shards = ShardPlan { folder: root.to_owned(), stem: "codes", records, shard_size };
        Ok(CodeWriter { plan, shards })
    }

    /// Settings of the run.
    pub fn plan(&self) -> &CodePlan {
        &self.plan
    }

    /// Shards still to be written.
    pub fn missing(&self) -> Vec<usize> {
        self.shards.missing()
    }

    /// Images of a shard.
    pub fn range(&self, shard: usize) -> Range<usize> {
        self.shards.range(shard)
    }

    /// An empty shard to be filled record by record and given to [`CodeWriter::write`].
    pub fn begin(&self, shard: usize) -> PendingShard {
        PendingShard { shard, codes: vec![], labels: vec![], captions: vec![], caption_ends: vec![] }
    }

    /// Adds a record: its codes in every view, A·N of them, view after view; its caption may be
    /// empty.
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
        let path = self.shards.path(pending.shard);
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

    /// True if an existing shard holds records.
    ///
    /// # Errors
    /// Returns an error if a shard cannot be read.
    pub fn has_records(&self) -> Result<bool> {
        for file in self.shards.files().filter(|file| self.shards.folder.join(file).exists()) {
            if !self.open(&file)?.labels.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the index and the class names once no shard is missing.
    pub fn finish(&self, classes: &[Class]) -> Result<CodeIndex> {
        if let Some(i) = self.missing().first() {
            return Err(Error::Settings(format!("shard `{}` is still missing", self.shards.file(*i))));
        }
        let entry = |file: String| Ok(ShardEntry { records: self.open(&file)?.labels.len(), file });
        let shards = self.shards.files().map(entry).collect::<Result<Vec<_>>>()?;
        let records = shards.iter().map(|s| s.records).sum();
        let CodePlan { tokenizer, views, precision, data, .. } = self.plan.clone();
        let skipped = self.plan.records - records;
        let index = CodeIndex { tokenizer, views, precision, records, skipped, data, shards };
        write_classes(&self.shards.folder, classes)?;
        let path = self.shards.folder.join(INDEX);
        write_json(&path, &index).map_err(Error::write(&path))?;
        Ok(index)
    }

    fn open(&self, file: &str) -> Result<Shard> {
        Shard::open(&self.shards.folder, file, &self.plan.tokenizer, self.plan.views.len())
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
