//! All that a run has gathered: sums, and little else. It can be saved, continued and merged.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use eval::{AccumulateSpec, FeatureAccumulator};
use serde_json::Value as Json;
use tch::Tensor;
use weights::Checkpoint;

use super::networks::Role;
use super::parts::Shard;
use super::tally::Tally;
use crate::failure::Failure;

/// Everything gathered so far.
#[derive(Debug)]
pub struct State {
    /// Features of what is judged.
    pub samples: BTreeMap<Role, FeatureAccumulator>,
    /// Features of what it is compared with.
    pub reference: BTreeMap<Role, FeatureAccumulator>,
    /// All else.
    pub tally: Tally,
}

/// What must be kept of each network's features, for both sides.
pub type Wanted = [BTreeMap<Role, AccumulateSpec>; 2];

const SIDES: [&str; 2] = ["samples", "reference"];

impl State {
    /// Before the first image.
    pub fn new(
        samples: BTreeMap<Role, FeatureAccumulator>,
        reference: BTreeMap<Role, FeatureAccumulator>,
    ) -> Self {
        State { samples, reference, tally: Tally::new() }
    }

    /// Writes everything; `run` describes what it belongs to.
    pub fn save(&self, path: &Path, run: &Json, shard: Shard) -> Result<()> {
        let mut tensors: Vec<(String, Tensor)> = vec![];
        let mut notes = BTreeMap::new();
        notes.insert("run".to_owned(), run.to_string());
        notes.insert("shard".to_owned(), serde_json::to_string(&shard)?);
        notes.insert("tally".to_owned(), serde_json::to_string(&self.tally)?);
        for (side, collectors) in SIDES.iter().zip([&self.samples, &self.reference]) {
            for (role, collector) in collectors {
                let prefix = format!("{side}.{}", role.name());
                let (mine, head) = collector.save(&prefix)?;
                tensors.extend(mine);
                notes.insert(prefix, head);
            }
        }
        Ok(weights::save_safetensors(path, &tensors, &notes)?)
    }

    /// What [`State::save`] wrote, if it belongs to this run.
    pub fn load(path: &Path, run: &Json, wanted: &Wanted) -> Result<(State, Shard)> {
        let file = Checkpoint::open(path)?;
        let notes = file.metadata().clone();
        let note = |name: &str| -> Result<String> {
            let text = notes.get(name).and_then(Json::as_str);
            text.map(str::to_owned).with_context(|| format!("`{}` is no partial evaluation", path.display()))
        };
        let found: Json = serde_json::from_str(&note("run")?)?;
        if found != *run {
            return Err(other_run(path, &found, run).into());
        }
        let source = file.section(None)?;
        let mut sides = [BTreeMap::new(), BTreeMap::new()];
        for ((side, gathers), collectors) in SIDES.iter().zip(wanted).zip(&mut sides) {
            for (role, gather) in gathers {
                let prefix = format!("{side}.{}", role.name());
                let loaded =
                    FeatureAccumulator::load(gather.clone(), source.as_ref(), &prefix, &note(&prefix)?)?;
                collectors.insert(*role, loaded);
            }
        }
        let [samples, reference] = sides;
        let tally = serde_json::from_str(&note("tally")?)?;
        Ok((State { samples, reference, tally }, serde_json::from_str(&note("shard")?)?))
    }

    /// Takes in another part of the same run.
    pub fn merge(&mut self, other: State) -> Result<()> {
        let mut sides = [(&mut self.samples, other.samples), (&mut self.reference, other.reference)];
        for (mine, theirs) in &mut sides {
            for (role, collector) in std::mem::take(theirs) {
                match mine.get_mut(&role) {
                    Some(own) => own.merge(collector)?,
                    None => {
                        mine.insert(role, collector);
                    }
                }
            }
        }
        self.tally.merge(other.tally)
    }
}

fn other_run(path: &Path, found: &Json, expected: &Json) -> Failure {
    let differ: Vec<&str> = match (found.as_object(), expected.as_object()) {
        (Some(f), Some(e)) => e.keys().filter(|k| f.get(*k) != e.get(*k)).map(String::as_str).collect(),
        _ => vec![],
    };
    let failure = Failure::new(format!(
        "`{}` belongs to another run; these differ: {}",
        path.display(),
        differ.join(", ")
    ));
    let failure = match differ.contains(&"content") {
        true => failure.hint("the images, their labels or their prompts are not those that were counted"),
        false => failure,
    };
    failure.hint("give another file with `--partial`, or remove this one to begin anew")
}
