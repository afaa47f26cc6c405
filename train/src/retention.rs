//! Removal of old saved states.

use std::path::Path;

use crate::manifest::{Manifest, files_ending};
use crate::{Error, Result};

/// Saved states that are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetentionPolicy {
    /// Number of newest states, at least 1.
    pub newest: usize,
    /// States of steps that are multiples of it, never removed; 0 for none.
    pub milestone: u64,
}

impl RetentionPolicy {
    /// The newest state and the one before it.
    pub const TWO: RetentionPolicy = RetentionPolicy { newest: 2, milestone: 0 };

    /// Whether the state of a step is a milestone.
    pub fn is_milestone(self, step: u64) -> bool {
        self.milestone > 0 && step.is_multiple_of(self.milestone)
    }
}

/// Removes all states except milestones and the newest `keep` up to `step`. A state of a later step
/// belongs to a past that the run went back behind; tensors without a manifest belong to a save
/// that did not end.
pub(crate) fn remove_surplus(dir: &Path, step: u64, keep: usize) -> Result<()> {
    let mut kept = Vec::new();
    let mut newest = 0;
    for path in Manifest::list(dir)?.into_iter().rev() {
        let manifest = Manifest::read(&path).ok().filter(|m| m.step <= step);
        let stays = manifest.is_some_and(|m| {
            newest += 1;
            if m.milestone || newest <= keep {
                kept.extend(m.files.into_iter().map(|f| dir.join(f.name)));
                return true;
            }
            false
        });
        if !stays {
            std::fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
    }
    for path in files_ending(dir, "safetensors")? {
        if !kept.contains(&path) {
            std::fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
    }
    Ok(())
}
