//! Runs in shards: the images of each, and how shards become the whole.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::Result;
use crate::job_error::JobError;
use crate::state::{SavedState, Sums};

/// One of several parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// 0 to `world` - 1.
    pub rank: u64,
    /// Number of shards.
    pub world: u64,
}

impl Shard {
    /// All of a run.
    pub const WHOLE: Shard = Shard { rank: 0, world: 1 };

    /// `K/N` with K below N.
    pub fn parse(text: &str) -> Option<Shard> {
        let (rank, world) = text.split_once('/')?;
        let shard = Shard { rank: rank.parse().ok()?, world: world.parse().ok()? };
        (shard.rank < shard.world).then_some(shard)
    }

    /// Numbers of its images among `images`.
    pub fn share(self, images: u64) -> impl Iterator<Item = u64> {
        (0..images).filter(move |i| i % self.world == self.rank)
    }
}

/// Reads the shards of a run in the order of their ranks.
///
/// # Errors
/// Returns an error unless all shards are present, each once and complete: `phases` are the names
/// and numbers of images of the whole run's phases.
pub fn read_shards(
    paths: &[PathBuf],
    run: &Json,
    sums: &Sums,
    phases: &[(&str, u64)],
) -> Result<Vec<SavedState>> {
    let mut shards = vec![];
    for path in paths {
        let state = SavedState::load(path, run, sums)?;
        let shard: Shard = serde_json::from_str(&state.shard)?;
        for &(phase, images) in phases {
            let expected = shard.share(images).count() as u64;
            let done = state.totals.done.get(phase).copied().unwrap_or(0);
            if done != expected {
                let phase = phase.to_owned();
                return Err(JobError::ShardIncomplete { path: path.clone(), done, expected, phase }.into());
            }
        }
        shards.push((shard, path, state));
    }
    shards.sort_by_key(|(shard, ..)| shard.rank);
    let world = shards.first().map_or(0, |(shard, ..)| shard.world);
    for (expected, (shard, path, _)) in (0..).zip(&shards) {
        if shard.world != world || shard.rank < expected {
            let Shard { rank, world } = *shard;
            return Err(JobError::ShardTwice { path: (*path).clone(), rank, world }.into());
        }
        if shard.rank > expected {
            return Err(JobError::ShardMissing { rank: expected, world }.into());
        }
    }
    if shards.len() as u64 != world {
        return Err(JobError::ShardMissing { rank: shards.len() as u64, world }.into());
    }
    Ok(shards.into_iter().map(|(.., state)| state).collect())
}
