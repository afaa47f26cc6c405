//! Writes text features so that an interrupted run resumes where it stopped.

use std::io::Write;
use std::ops::Range;
use std::path::Path;

use base::files::{write_atomic, write_json};
use base::resume::ShardPlan;
use libtorch_ext::bytes::with_bytes;
use safetensors::{Dtype, tensor::TensorView};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{EncoderId, INDEX, TextIndex};
use crate::claim::claim;
use crate::codes::ShardEntry;
use crate::{Error, Result};

/// Settings that determine a run's output. Only a run with an equal plan continues a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextPlan {
    /// Encoder of the features.
    pub encoder: EncoderId,
    /// The number of captions.
    pub captions: usize,
    /// Captions per shard; the last has the rest.
    pub shard_size: usize,
    /// A hash of the captions in order.
    pub captions_fingerprint: String,
    /// Description of the captions' origin, as free text.
    pub data: String,
}

impl TextPlan {
    /// Claims `root`, which is created if it is missing, for a run with this plan.
    fn claim(&self, root: &Path) -> Result<()> {
        let refusal = |differences| Error::OtherFeatures { path: root.to_owned(), differences };
        claim(root, self, &[], setting_name, refusal)
    }
}

fn setting_name(key: &str) -> &'static str {
    match key {
        "encoder" => "the encoder, its precision or the cleaning",
        "shard_size" => "the shard size",
        _ => "the captions",
    }
}

/// Writer of text features. Each shard appears under its name only when it is complete.
#[derive(Debug)]
pub struct TextWriter {
    plan: TextPlan,
    shards: ShardPlan,
}

impl TextWriter {
    /// Begins or continues in `root`, which is created if it is missing.
    ///
    /// # Errors
    /// Returns an error if the folder belongs to another run, a file fails, or there is nothing to
    /// write.
    pub fn create(root: &Path, plan: TextPlan) -> Result<Self> {
        if plan.captions == 0 || plan.shard_size == 0 {
            return Err(Error::Settings("there is no caption to store features of".into()));
        }
        plan.claim(root)?;
        let TextPlan { captions: records, shard_size, .. } = plan;
        let shards = ShardPlan { folder: root.to_owned(), stem: "text", records, shard_size };
        Ok(TextWriter { plan, shards })
    }

    /// Shards still to be written.
    pub fn missing(&self) -> Vec<usize> {
        self.shards.missing()
    }

    /// Captions of a shard.
    pub fn range(&self, shard: usize) -> Range<usize> {
        self.shards.range(shard)
    }

    /// Writes a shard: its captions, and the features (L, C) of each, in bf16 or fp32 on the CPU.
    ///
    /// # Errors
    /// Returns an error if it cannot be written, or the features are not the encoder's.
    pub fn write<S: AsRef<str>>(&self, shard: usize, captions: &[S], features: &[Tensor]) -> Result<()> {
        let path = self.shards.path(shard);
        let width = self.plan.encoder.width;
        let good = features.iter().all(|f| f.size().get(1) == Some(&width));
        if captions.len() != self.range(shard).len() || features.len() != captions.len() || !good {
            return Err(Error::Settings(format!(
                "shard {shard}: expected features of width {width} of {} captions",
                self.range(shard).len()
            )));
        }
        let all = Tensor::cat(features, 0).contiguous();
        let dtype = if all.kind() == Kind::BFloat16 { Dtype::BF16 } else { Dtype::F32 };
        let lengths = features.iter().map(|f| f.size()[0]);
        let (feature_ends, rows) = ends(lengths);
        let (caption_ends, _) = ends(captions.iter().map(|c| c.as_ref().len() as i64));
        let texts: Vec<u8> = captions.iter().flat_map(|c| c.as_ref().bytes()).collect();
        let bad = |e: safetensors::SafeTensorError| Error::malformed(&path, e.to_string());
        let count = captions.len();
        let bytes = with_bytes(&all, |values| {
            let tensors = [
                ("features", TensorView::new(dtype, vec![rows as usize, width as usize], values)?),
                ("feature_ends", TensorView::new(Dtype::I64, vec![count], &feature_ends)?),
                ("captions", TensorView::new(Dtype::U8, vec![texts.len()], &texts)?),
                ("caption_ends", TensorView::new(Dtype::I64, vec![count], &caption_ends)?),
            ];
            safetensors::serialize(tensors, None)
        })
        .map_err(|e| Error::Settings(format!("libtorch: {e}")))?
        .map_err(bad)?;
        write_atomic(&path, |f| f.write_all(&bytes)).map_err(Error::write(&path))
    }

    /// Writes the index once no shard is missing.
    ///
    /// # Errors
    /// Returns an error if one is missing, or the index cannot be written.
    pub fn finish(&self) -> Result<TextIndex> {
        if let Some(i) = self.missing().first() {
            return Err(Error::Settings(format!("shard `{}` is still missing", self.shards.file(*i))));
        }
        let TextPlan { encoder, captions, data, .. } = self.plan.clone();
        let entry = |(i, file)| ShardEntry { file, records: self.range(i).len() };
        let shards = self.shards.files().enumerate().map(entry).collect();
        let index = TextIndex { encoder, captions, data, shards };
        let path = self.shards.folder.join(INDEX);
        write_json(&path, &index).map_err(Error::write(&path))?;
        Ok(index)
    }
}

/// Running sums as bytes, and the last.
fn ends(lengths: impl Iterator<Item = i64>) -> (Vec<u8>, i64) {
    let mut sum = 0;
    let mut bytes = vec![];
    for length in lengths {
        sum += length;
        bytes.extend(sum.to_le_bytes());
    }
    (bytes, sum)
}
