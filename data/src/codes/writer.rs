//! Writes code shards so that an interrupted run goes on where it stopped.

use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use base::files::write_atomic;
use safetensors::{Dtype, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::shards::{CLASSES, INDEX, Shard};
use super::{CodeIndex, CodeRecord, ShardEntry, TokenizerId};
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
    /// A hash of the images' keys and labels ([`crate::fingerprint`]).
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

    /// Which settings differ, for the refusal to continue another run's folder.
    fn differences(&self, other: &CodePlan) -> Vec<&'static str> {
        let mut d = vec![];
        let mut note = |same: bool, what| {
            if !same {
                d.push(what)
            }
        };
        note(self.tokenizer == other.tokenizer, "the tokenizer");
        note(self.views == other.views, "the augmentations");
        note(self.data_fingerprint == other.data_fingerprint && self.records == other.records, "the images");
        note(self.shard_size == other.shard_size, "the shard size");
        d
    }
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
        plan.validate()?;
        std::fs::create_dir_all(root).map_err(Error::write(root))?;
        let path = root.join(PLAN);
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
            let begun: CodePlan = serde_json::from_str(&text)
                .map_err(|e| Error::malformed(&path, format!("not a plan: {e}")))?;
            let differences = begun.differences(&plan);
            if !differences.is_empty() {
                return Err(Error::OtherCodes { path: root.to_owned(), differences: differences.join(", ") });
            }
        } else if root.join(INDEX).exists() {
            return Err(Error::OtherCodes {
                path: root.to_owned(),
                differences: "its plan is missing".into(),
            });
        } else {
            write_json(&path, &plan)?;
        }
        Ok(CodeWriter { root: root.to_owned(), plan })
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

    /// Writes one shard. `views[a][r]` is record r in view a; all views have the same records.
    pub fn write(&self, shard: usize, views: &[Vec<CodeRecord>]) -> Result<()> {
        let path = self.root.join(self.file(shard));
        let records = self.check(shard, views)?;
        let mut codes =
            Vec::with_capacity(records * views.len() * self.plan.tokenizer.num_tokens as usize * 2);
        for r in 0..records {
            for view in views {
                for &c in &view[r].codes {
                    let code = u16::try_from(c).expect("checked above");
                    codes.extend(code.to_le_bytes());
                }
            }
        }
        let labels: Vec<u8> = views[0].iter().flat_map(|r| r.label.to_le_bytes()).collect();
        let shape = vec![records, views.len(), self.plan.tokenizer.num_tokens as usize];
        let bad = |e: safetensors::SafeTensorError| Error::malformed(&path, e.to_string());
        let tensors = [
            ("codes", TensorView::new(Dtype::U16, shape, &codes).map_err(bad)?),
            ("labels", TensorView::new(Dtype::I64, vec![records], &labels).map_err(bad)?),
        ];
        let metadata = HashMap::from([("tokenizer".to_owned(), self.plan.tokenizer.fingerprint.clone())]);
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(bad)?;
        write_atomic(&path, |f| f.write_all(&bytes)).map_err(Error::write(&path))
    }

    fn check(&self, shard: usize, views: &[Vec<CodeRecord>]) -> Result<usize> {
        let TokenizerId { codebook_size, num_tokens, .. } = self.plan.tokenizer;
        let records = views.first().map_or(0, Vec::len);
        let sizes_ok = views.len() == self.plan.views.len()
            && views.iter().all(|v| v.len() == records)
            && records <= self.range(shard).len();
        let codes_ok = views.iter().flatten().all(|r| {
            r.codes.len() as i64 == num_tokens && r.codes.iter().all(|c| (0..codebook_size).contains(c))
        });
        if !sizes_ok || !codes_ok {
            return Err(Error::Settings(format!(
                "shard {shard}: expected {} views of at most {} records of {num_tokens} codes below {codebook_size}",
                self.plan.views.len(),
                self.range(shard).len()
            )));
        }
        Ok(records)
    }

    /// Writes the index and the class names once no shard is missing.
    pub fn finish(&self, classes: &[Class]) -> Result<CodeIndex> {
        if let Some(i) = self.missing().first() {
            return Err(Error::Settings(format!("shard `{}` is still missing", self.file(*i))));
        }
        let mut shards = vec![];
        for file in (0..self.plan.num_shards()).map(|i| self.file(i)) {
            let shard = Shard::open(&self.root.join(&file), &self.plan.tokenizer, self.plan.views.len())?;
            shards.push(ShardEntry { file, records: shard.labels.len() });
        }
        let records = shards.iter().map(|s| s.records).sum();
        let CodePlan { tokenizer, views, data, .. } = self.plan.clone();
        let index =
            CodeIndex { tokenizer, views, records, skipped: self.plan.records - records, data, shards };
        if !classes.is_empty() {
            let path = self.root.join(CLASSES);
            write_atomic(&path, |f| f.write_all(to_tsv(classes).as_bytes())).map_err(Error::write(&path))?;
        }
        write_json(&self.root.join(INDEX), &index)?;
        Ok(index)
    }
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("plain data");
    write_atomic(path, |f| writeln!(f, "{text}")).map_err(Error::write(path))
}
