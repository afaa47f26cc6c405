//! Everything that a run gathers: sums and little else. It can be saved, resumed and merged.

use std::collections::BTreeMap;
use std::path::Path;

use base::resume::differing_keys;
use serde_json::Value as Json;
use tch::Tensor;
use weights::Checkpoint;

use crate::accumulator::{AccumulateSpec, FeatureAccumulator};
use crate::job_error::JobError;
use crate::metric::RunMetric;
use crate::networks::{Networks, Role};
use crate::totals::RunTotals;
use crate::{Error, Result};

/// Sums over features by role.
pub type Accumulators = BTreeMap<Role, FeatureAccumulator>;
/// Kinds of these sums, of both sides.
pub type Sums = [BTreeMap<Role, AccumulateSpec>; 2];

const SIDES: [&str; 2] = ["samples", "reference"];

/// State of a run.
pub struct RunState {
    /// Features of the images judged.
    pub samples: Accumulators,
    /// Features of the images compared with.
    pub reference: Accumulators,
    /// Metrics and their sums.
    pub metrics: Vec<RunMetric>,
    /// Counts.
    pub totals: RunTotals,
}

/// A state as read from its file.
pub struct SavedState {
    sides: [Accumulators; 2],
    metrics: BTreeMap<String, Json>,
    /// Counts.
    pub totals: RunTotals,
    /// Part of the run, as JSON.
    pub shard: String,
}

impl RunState {
    /// State before the first image.
    pub fn new(sums: &Sums, networks: &Networks, metrics: Vec<RunMetric>) -> Self {
        let accumulators = |specs: &BTreeMap<Role, AccumulateSpec>| {
            let new = |(&role, spec): (&Role, &AccumulateSpec)| {
                (role, FeatureAccumulator::new(networks.id(role).clone(), spec.clone()))
            };
            specs.iter().map(new).collect()
        };
        let [samples, reference] = sums;
        RunState {
            samples: accumulators(samples),
            reference: accumulators(reference),
            metrics,
            totals: RunTotals::default(),
        }
    }

    /// Writes everything; `run` describes what it belongs to, `shard` the part of it as JSON.
    pub fn save(&self, path: &Path, run: &Json, shard: &str) -> Result<()> {
        let mut tensors: Vec<(String, Tensor)> = vec![];
        let mut notes = BTreeMap::new();
        let mut metrics = BTreeMap::new();
        for (metric, state) in &self.metrics {
            metrics.insert(metric.name(), state.save()?);
        }
        notes.insert("run".to_owned(), run.to_string());
        notes.insert("shard".to_owned(), shard.to_owned());
        notes.insert("totals".to_owned(), serde_json::to_string(&self.totals)?);
        notes.insert("metrics".to_owned(), serde_json::to_string(&metrics)?);
        for (side, accumulators) in SIDES.iter().zip([&self.samples, &self.reference]) {
            for (role, accumulator) in accumulators {
                let prefix = format!("{side}.{}", role.name());
                let (mine, head) = accumulator.save(&prefix)?;
                tensors.extend(mine);
                notes.insert(prefix, head);
            }
        }
        Ok(weights::save_safetensors(path, &tensors, &notes)?)
    }

    /// Adds a saved state of other images of the run.
    pub fn merge(&mut self, saved: SavedState) -> Result<()> {
        let SavedState { sides, metrics, totals, shard: _ } = saved;
        for (mine, theirs) in [&mut self.samples, &mut self.reference].into_iter().zip(sides) {
            for (role, accumulator) in theirs {
                match mine.get_mut(&role) {
                    Some(own) => own.merge(accumulator)?,
                    None => drop(mine.insert(role, accumulator)),
                }
            }
        }
        for (metric, state) in &mut self.metrics {
            let lacking = || Error::Saved(format!("there is nothing of {metric}"));
            state.merge(metrics.get(metric.name()).ok_or_else(lacking)?)?;
        }
        self.totals.merge(totals);
        Ok(())
    }
}

impl SavedState {
    /// Reads what [`RunState::save`] wrote.
    ///
    /// # Errors
    /// Returns an error if the file belongs to another run or was written by a version with another
    /// layout.
    pub fn load(path: &Path, run: &Json, sums: &Sums) -> Result<SavedState> {
        let file = Checkpoint::open(path)?;
        let notes = file.metadata().clone();
        let note = |name: &str| -> Result<String> {
            let text = notes.get(name).and_then(Json::as_str);
            Ok(text.map(str::to_owned).ok_or_else(|| JobError::NotPartial { path: path.to_owned() })?)
        };
        if notes.contains_key("tally") {
            return Err(JobError::OldPartial { path: path.to_owned() }.into());
        }
        let found: Json = serde_json::from_str(&note("run")?)?;
        let differ = differing_keys(&found, run);
        if !differ.is_empty() {
            return Err(JobError::OtherRun { path: path.to_owned(), differ }.into());
        }
        let source = file.section(None)?;
        let mut sides = [BTreeMap::new(), BTreeMap::new()];
        for ((side, specs), accumulators) in SIDES.iter().zip(sums).zip(&mut sides) {
            for (role, spec) in specs {
                let prefix = format!("{side}.{}", role.name());
                let head = note(&prefix)?;
                let loaded = FeatureAccumulator::load(spec.clone(), source.as_ref(), &prefix, &head)?;
                accumulators.insert(*role, loaded);
            }
        }
        let totals = serde_json::from_str(&note("totals")?)?;
        let metrics = serde_json::from_str(&note("metrics")?)?;
        Ok(SavedState { sides, metrics, totals, shard: note("shard")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_an_earlier_layout_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old");
        let run = serde_json::json!({ "program": "gen" });
        let notes = [("run", run.to_string()), ("shard", "{}".into()), ("tally", "{}".into())];
        let notes = notes.map(|(name, text)| (name.to_owned(), text)).into();
        weights::save_safetensors(&path, &[], &notes).unwrap();
        let load = |run: &Json| SavedState::load(&path, run, &Sums::default()).err().unwrap().to_string();
        let error = load(&run);
        assert!(error.contains("old`") && error.contains("an earlier version"), "{error}");
        assert!(load(&Json::Null).contains("an earlier version"));
    }
}
