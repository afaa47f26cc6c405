//! Images that are judged, and those that they are compared with, as reports name them.

use std::path::PathBuf;

use anyhow::Result;
use eval::{Reference, ScoreContext};
use serde::Serialize;
use serde_json::Value as Json;

use crate::commands::eval::source::Source;

/// Images judged.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SamplesReport {
    /// Path as named; none for images that were made.
    pub path: Option<PathBuf>,
    /// Images scored.
    pub images: u64,
    /// The sum of the SHA-256 of their names and pixels, where they were read from files.
    pub digest: Option<String>,
    /// The settings of a model that made them, or the tokenizer's weights.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub made_by: Json,
}

/// A reference as reports name it.
#[derive(Debug, Clone, Serialize)]
pub struct ReferenceReport {
    /// Path as named.
    pub path: PathBuf,
    /// SHA-256 of the file; of a folder's images, the sum of the SHA-256 of their names and pixels.
    pub sha256: Option<String>,
    /// Its kind, and how that is known.
    pub kind: String,
    /// Number of its images that were read.
    pub images: u64,
    /// Number of images that its stored statistics are of, if known.
    pub statistics_of: Option<u64>,
}

impl ReferenceReport {
    /// The reference, or the images that a tokenizer was given.
    pub fn new(reference: Option<&Reference>, source: &Source, context: &ScoreContext) -> Option<Self> {
        let (path, kind, statistics_of) = match (reference, source) {
            (Some(r), _) => {
                let tag = r.file.as_ref().and_then(|f| f.tag.as_ref());
                (&r.path, r.kind.clone(), tag.map(|t| t.images))
            }
            (None, Source::Reconstruct(_, set)) => (&set.path, "the originals themselves".into(), None),
            (None, Source::Files(_) | Source::Generate(_) | Source::Predict(_)) => return None,
        };
        let (path, images) = (path.clone(), context.reference.unwrap_or(0));
        Some(ReferenceReport { path, sha256: context.reference_sha256.clone(), kind, images, statistics_of })
    }
}

impl SamplesReport {
    pub fn new(source: &Source, images: u64, digest: String) -> Result<Self> {
        Ok(match source {
            Source::Files(set) => SamplesReport {
                path: Some(set.path.clone()),
                images,
                digest: Some(digest),
                made_by: Json::Null,
            },
            Source::Reconstruct(..) | Source::Generate(_) | Source::Predict(_) => {
                SamplesReport { path: None, images, digest: None, made_by: source.describe()? }
            }
        })
    }
}
