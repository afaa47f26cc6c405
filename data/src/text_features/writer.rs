//! Writes text features so that an interrupted run goes on where it stopped.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use base::files::write_atomic;
use libtorch_ext::bytes::with_bytes;
use safetensors::{Dtype, tensor::TensorView};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{EncoderId, INDEX, TextIndex};
use crate::codes::ShardEntry;
use crate::{Error, Result};

const PLAN: &str = "plan.json";

/// All that decides what a run writes. A folder is continued only by a run with an equal plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextPlan {
    /// Which encoder makes the features.
    pub encoder: EncoderId,
    /// The number of captions.
    pub captions: usize,
    /// Captions per shard; the last has the rest.
    pub shard_size: usize,
    /// A hash of the captions in order.
    pub captions_fingerprint: String,
    /// Whose captions, for people.
    pub data: String,
}

impl TextPlan {
    /// Makes `root` if need be and notes the plan there. Refuses a folder that another plan, or something else, uses.
    fn claim(&self, root: &Path) -> Result<()> {
        std::fs::create_dir_all(root).map_err(Error::write(root))?;
        let refuse = |differences: &str| {
            Err(Error::OtherFeatures { path: root.to_owned(), differences: differences.to_owned() })
        };
        let path = root.join(PLAN);
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
            let begun: TextPlan = serde_json::from_str(&text)
                .map_err(|e| Error::malformed(&path, format!("not a plan of text features: {e}")))?;
            return match &begun {
                b if b == self => Ok(()),
                b if b.encoder != self.encoder => refuse("the encoder, its precision or the cleaning"),
                b if b.shard_size != self.shard_size => refuse("the shard size"),
                _ => refuse("the captions"),
            };
        }
        if std::fs::read_dir(root).map_err(Error::read(root))?.next().is_some() {
            return refuse("there is no `plan.json`, but other files");
        }
        write_json(&path, self)
    }

    fn num_shards(&self) -> usize {
        self.captions.div_ceil(self.shard_size)
    }
}

/// Writer of text features. Each shard appears under its name only when it is complete.
#[derive(Debug)]
pub struct TextWriter {
    root: PathBuf,
    plan: TextPlan,
}

impl TextWriter {
    /// Begins or continues in `root`, which is created if need be.
    ///
    /// # Errors
    /// The folder belongs to another run, or there is nothing to write.
    pub fn create(root: &Path, plan: TextPlan) -> Result<Self> {
        if plan.captions == 0 || plan.shard_size == 0 {
            return Err(Error::Settings("there is no caption to store features of".into()));
        }
        plan.claim(root)?;
        Ok(TextWriter { root: root.to_owned(), plan })
    }

    /// The numbers of the shards still to be written.
    pub fn missing(&self) -> Vec<usize> {
        (0..self.plan.num_shards()).filter(|i| !self.root.join(self.file(*i)).exists()).collect()
    }

    /// The captions that belong into a shard.
    pub fn range(&self, shard: usize) -> Range<usize> {
        let start = shard * self.plan.shard_size;
        start..(start + self.plan.shard_size).min(self.plan.captions)
    }

    fn file(&self, shard: usize) -> String {
        format!("text-{shard:05}-of-{:05}.safetensors", self.plan.num_shards())
    }

    /// Writes a shard: its captions, and the features (L, C) of each, in bf16 or fp32 on the CPU.
    ///
    /// # Errors
    /// It cannot be written, or the features are not the encoder's.
    pub fn write<S: AsRef<str>>(&self, shard: usize, captions: &[S], features: &[Tensor]) -> Result<()> {
        let path = self.root.join(self.file(shard));
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
    /// One is missing, or the index cannot be written.
    pub fn finish(&self) -> Result<TextIndex> {
        if let Some(i) = self.missing().first() {
            return Err(Error::Settings(format!("shard `{}` is still missing", self.file(*i))));
        }
        let TextPlan { encoder, captions, data, .. } = self.plan.clone();
        let shards = (0..self.plan.num_shards())
            .map(|i| ShardEntry { file: self.file(i), records: self.range(i).len() })
            .collect();
        let index = TextIndex { encoder, captions, data, shards };
        write_json(&self.root.join(INDEX), &index)?;
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

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("plain data");
    write_atomic(path, |f| writeln!(f, "{text}")).map_err(Error::write(path))
}
