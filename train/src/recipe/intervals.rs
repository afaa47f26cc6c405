//! Intervals of logging, validating and saving.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Intervals in steps; 0 is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervals {
    /// A line in the log.
    pub log: u64,
    /// Validation.
    pub validate: u64,
    /// Pictures in `samples/`: a transformer's samples, a tokenizer's reconstructions.
    #[serde(default)]
    pub samples: u64,
    /// Saving state and weights; both are also saved at the end.
    pub save: u64,
    /// Saving a state that is never removed.
    #[serde(default)]
    pub milestone: u64,
    /// Not an interval: number of newest states kept beside the milestones, at least 1.
    #[serde(default = "two")]
    pub keep: usize,
}

fn two() -> usize {
    2
}

impl Intervals {
    /// Refuses `keep` 0.
    ///
    /// # Errors
    /// Returns an error if no state would be kept.
    pub fn check(&self) -> Result<()> {
        match self.keep {
            0 => Err(Error::Recipe("every.keep must be at least 1, the newest state; found 0".into())),
            _ => Ok(()),
        }
    }
}
