//! Stored text features: what a text encoder made of captions, so that a transformer can be trained
//! without it.
//!
//! `text-00000-of-000NN.safetensors` hold for R captions `features (L1 + … + LR, C)` in bf16 or
//! fp32, `feature_ends (R,) i64`, `captions u8` and `caption_ends (R,) i64`, beside one
//! `index.json`. Only positions with text are stored. A caption finds its features by its words, so
//! that one folder serves any set of images with these captions.

mod writer;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base::hash::sha256;
use libtorch_ext::bytes::tensor_from_bytes;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

pub use writer::{TextPlan, TextWriter};

use crate::codes::ShardEntry;
use crate::texts::{ANY, Texts, open_shard, read_header, read_i64, tensor};
use crate::{Error, Result};

const INDEX: &str = "index.json";

/// Identity of an encoder and its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderId {
    /// Hash of its weights and its tokenizer.
    pub fingerprint: String,
    /// Width of the features, C.
    pub width: i64,
    /// Most tokens of a caption.
    pub length: i64,
    /// Whether captions were cleaned first, as published.
    pub clean: bool,
    /// Precision of the encoder and the stored features: `bf16` or `fp32`.
    pub precision: String,
}

/// `index.json`: what a folder of text features holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextIndex {
    /// The encoder.
    pub encoder: EncoderId,
    /// The number of captions, all different.
    pub captions: usize,
    /// Description of the captions' origin, as free text.
    pub data: String,
    /// The shards in order; `records` are captions.
    pub shards: Vec<ShardEntry>,
}

/// Reader of stored text features. Places are kept in memory, features are read from the disk.
#[derive(Debug)]
pub struct TextFeatureShards {
    root: PathBuf,
    index: TextIndex,
    shards: Vec<Shard>,
    places: HashMap<[u8; 16], (u32, u32)>, // shard and row
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    features_at: u64,
    ends: Vec<i64>,
    kind: Kind,
}

/// Key of a caption.
fn digest(caption: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&sha256(caption)[..16]);
    short
}

impl TextFeatureShards {
    /// Opens a finished folder.
    ///
    /// # Errors
    /// Returns an error if it is unfinished, damaged, or not such a folder.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join(INDEX);
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::malformed(
                root,
                format!("it holds no text features: there is no `{INDEX}`; `gen extract --text` makes them"),
            ),
            _ => Error::Read { path: path.clone(), source },
        })?;
        let index: TextIndex = serde_json::from_str(&text)
            .map_err(|e| Error::malformed(&path, format!("not an index of text features: {e}")))?;
        if index.encoder.width < 1 {
            return Err(Error::malformed(&path, format!("features of width {}", index.encoder.width)));
        }
        let mut set =
            TextFeatureShards { root: root.to_owned(), index, shards: vec![], places: HashMap::new() };
        for (number, entry) in set.index.shards.iter().enumerate() {
            let (shard, texts) = Shard::open(root, &entry.file, &set.index.encoder)?;
            if texts.len() != entry.records {
                let message =
                    format!("expected {} captions by the index, found {}", entry.records, texts.len());
                return Err(Error::malformed(&shard.path, message));
            }
            for row in 0..texts.len() {
                let caption = texts.get(&shard.file, &shard.path, row)?;
                set.places.insert(digest(&caption), (number as u32, row as u32));
            }
            set.shards.push(shard);
        }
        Ok(set)
    }

    /// The index.
    pub fn index(&self) -> &TextIndex {
        &self.index
    }

    /// A caption's features, (L, C) in the stored dtype; `None` if it is not among the stored ones.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn get(&self, caption: &str) -> Result<Option<Tensor>> {
        let Some(&(shard, row)) = self.places.get(&digest(caption)) else { return Ok(None) };
        self.shards[shard as usize].row(row as usize, self.index.encoder.width).map(Some)
    }

    /// One-line summary.
    pub fn describe(&self) -> String {
        let TextIndex { captions, encoder, .. } = &self.index;
        format!(
            "{}: features of {captions} captions, text encoder {}",
            self.root.display(),
            encoder.fingerprint
        )
    }
}

impl Shard {
    fn open(root: &Path, name: &str, encoder: &EncoderId) -> Result<(Self, Texts)> {
        let (path, file) = open_shard(root, name)?;
        let (start, meta) = read_header(&file, &path)?;
        let width = [ANY, Some(encoder.width as usize)];
        let features = tensor(&meta, &path, "features", Dtype::BF16, &width);
        let (kind, features) = match features {
            Ok(features) => (Kind::BFloat16, features),
            Err(e) => (Kind::Float, tensor(&meta, &path, "features", Dtype::F32, &width).map_err(|_| e)?),
        };
        let texts = Texts::read((&file, &path), (start, &meta), ("captions", "caption_ends"), ANY)?;
        let ends = tensor(&meta, &path, "feature_ends", Dtype::I64, &[Some(texts.len())])?;
        let ends = read_i64(&file, &path, start, ends)?;
        let rises = ends.iter().try_fold(0, |last, &end| (end > last).then_some(end));
        if rises != Some(features.shape[0] as i64) {
            return Err(Error::malformed(&path, "`feature_ends` does not rise to the number of rows"));
        }
        let features_at = start + features.data_offsets.0 as u64;
        Ok((Shard { path, file, features_at, ends, kind }, texts))
    }

    fn row(&self, row: usize, width: i64) -> Result<Tensor> {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        let rows = self.ends[row] - start;
        let line = width as u64 * self.kind.elt_size_in_bytes() as u64;
        let mut bytes = vec![0; (rows as u64 * line) as usize];
        let at = self.features_at + start as u64 * line;
        self.file.read_exact_at(&mut bytes, at).map_err(Error::read(&self.path))?;
        tensor_from_bytes(&bytes, &[rows, width], self.kind)
            .map_err(|e| Error::malformed(&self.path, format!("features of caption {row}: {e}")))
    }
}
