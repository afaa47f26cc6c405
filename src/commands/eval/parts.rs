//! Runs in parts: which images belong to a part, and how parts become the whole.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::state::{State, Wanted};
use crate::failure::Failure;

/// Which of how many parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// 0 to `world` - 1.
    pub rank: u64,
    /// How many there are.
    pub world: u64,
}

impl Shard {
    /// All of a run.
    pub const WHOLE: Shard = Shard { rank: 0, world: 1 };

    /// `K/N` of `--shard`, or all of the run.
    pub fn parse(text: Option<&str>) -> Result<Shard> {
        let Some(text) = text else { return Ok(Shard::WHOLE) };
        let parts = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((rank, world)) if rank < world => Ok(Shard { rank, world }),
            _ => Err(Failure::new(format!(
                "`--shard {text}`: expected K/N with K from 0 to N - 1, such as 0/4"
            ))
            .into()),
        }
    }

    /// Numbers of its images among so many.
    pub fn share(self, images: u64) -> impl Iterator<Item = u64> {
        (0..images).filter(move |i| i % self.world == self.rank)
    }
}

/// Merges the parts of a run in the order of their ranks; all must be there, each once and complete.
pub fn merge_files(
    paths: &[PathBuf],
    run: &Json,
    wanted: &Wanted,
    phases: &[(String, u64)],
) -> Result<State> {
    let mut parts = vec![];
    for path in paths {
        let (state, shard) = State::load(path, run, wanted)?;
        for (phase, images) in phases {
            let mine = shard.share(*images).count() as u64;
            let done = state.tally.done.get(phase).copied().unwrap_or(0);
            if done != mine {
                let message = format!("`{}` is not complete: {done} of {mine} {phase}", path.display());
                return Err(Failure::new(message)
                    .hint("run its command again; it goes on where it stopped")
                    .into());
            }
        }
        parts.push((shard, path, state));
    }
    parts.sort_by_key(|(shard, ..)| shard.rank);
    let world = parts.first().map_or(0, |(shard, ..)| shard.world);
    for (expected, (shard, path, _)) in (0..).zip(&parts) {
        if shard.world != world || shard.rank < expected {
            return Err(Failure::new(format!(
                "`{}` is shard {}/{} once more",
                path.display(),
                shard.rank,
                shard.world
            ))
            .into());
        }
        if shard.rank > expected {
            return Err(Failure::new(format!("shard {expected}/{world} is missing")).into());
        }
    }
    if parts.len() as u64 != world {
        return Err(Failure::new(format!("shard {}/{world} is missing", parts.len())).into());
    }
    let mut states = parts.into_iter().map(|(.., state)| state);
    let mut all = states.next().context("there are no shards")?;
    states.try_for_each(|state| all.merge(state))?;
    Ok(all)
}
