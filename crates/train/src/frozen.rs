//! Weights of networks that are not trained: backbones of discriminators, perceptual losses, teachers.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weights::{Checkpoint, TensorSource, Want};

use crate::{Error, Result};

/// Where a frozen network's weights come from: a file's path, or `{ random: SEED }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FrozenWeights {
    /// A checkpoint with the network's public names.
    File(PathBuf),
    /// Drawn anew, for tests and for a dry run where the file is not at hand; the loss then means little.
    Random {
        /// Decides the draw.
        random: u64,
    },
}

impl FrozenWeights {
    /// The weights, or an error that says which part lacks them.
    pub(crate) fn given<'a>(
        weights: Option<&'a FrozenWeights>,
        part: &'static str,
    ) -> Result<&'a FrozenWeights> {
        weights.ok_or(Error::NoWeights { part })
    }
}

/// Opens a file of weights.
pub(crate) fn open(path: &Path) -> Result<Box<dyn TensorSource>> {
    Ok(Checkpoint::open(path)?.source(Want::Auto)?)
}
