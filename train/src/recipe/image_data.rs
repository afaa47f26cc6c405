//! Training and validation images of a run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Images to train on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageData {
    /// Folder, tar shards or list of training images.
    pub train: Option<PathBuf>,
    /// The same, held out for validation. Null: no validation.
    pub validation: Option<PathBuf>,
    /// Square crop of each training image.
    pub crop: Crop,
    /// Mirror training images with probability 1/2.
    pub flip: bool,
    /// Decoding threads. Null: one a core.
    pub workers: Option<usize>,
    /// Largest number of damaged images; one more stops the run.
    pub max_corrupt: usize,
}

impl ImageData {
    /// Refuses numbers out of their range; `key` is the recipe's key of these images.
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        match self.crop {
            Crop::Random { min_fraction: f } if !(f > 0.0 && f <= 1.0) => Err(Error::Recipe(format!(
                "{key}.crop.min_fraction must be above 0 and at most 1, found {f}"
            ))),
            _ => Ok(()),
        }
    }

    /// The paths given.
    pub(crate) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.train.iter_mut().chain(self.validation.iter_mut())
    }
}

/// Square crop of a training image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Crop {
    /// The middle.
    Center,
    /// Anywhere, keeping at least this share of the short side (0.8 in GigaTok).
    Random {
        /// Smallest share kept, above 0 and at most 1.
        min_fraction: f64,
    },
}
