//! Saving a whole run and resuming it.
//!
//! A state is two files in `state/`: `step-N.safetensors` (weights, averages, both moments of each
//! optimizer, and in its metadata the step, the position in the data, the recipe and the program's
//! version), and `step-N.json`, with the length and the SHA-256 of the first. Both appear under
//! their names only when complete, the second after the first; a state counts after it has been
//! read back and found as written, and only then are older ones removed. So neither a kill at any
//! moment nor a full disk costs more than the work since the last save.
//!
//! Several processes write a file each, `step-N.rank-r-of-R.safetensors`, with their slices of the
//! same tensors; any number of processes reads them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::config::{Document, to_yaml};
use dist::World;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};
use weights::{Checkpoint, Slice, TensorSource};

use crate::files::{to_json, write_atomically};
use crate::manifest::{FileEntry, Manifest};
use crate::recipe::Optimization;
use crate::retention::{RetentionPolicy, remove_surplus};
use crate::schedule::Schedule;
use crate::{Error, Result};

/// A saved run, open for reading.
pub struct TrainCheckpoint {
    path: PathBuf,
    /// The last finished step.
    pub step: u64,
    /// Position in the data.
    pub position: String,
    /// The recipe, as YAML.
    pub recipe: String,
    /// Totals of the run until then.
    pub stats: RunStats,
    source: Box<dyn TensorSource>,
}

/// Totals of a run over all its starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStats {
    /// Training images seen, repetitions counted.
    pub samples: u64,
    /// Training time in seconds, without the time between a stop and the next start.
    pub seconds: f64,
    /// Steps skipped because a loss or gradient was not finite.
    pub skipped: u64,
}

impl std::fmt::Debug for TrainCheckpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainCheckpoint")
            .field("path", &self.path)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

impl TrainCheckpoint {
    /// The newest complete state of a run; newer damaged ones are skipped and named in the second
    /// result.
    ///
    /// # Errors
    /// Returns an error if no state is complete.
    pub fn newest(run: &Path) -> Result<(TrainCheckpoint, Vec<String>)> {
        let dir = run.join("state");
        let mut damaged = Vec::new();
        for path in Manifest::list(&dir)?.iter().rev() {
            match TrainCheckpoint::open(&dir, path) {
                Ok(saved) => return Ok((saved, damaged)),
                Err(e) => damaged.push(format!("passing over `{}`: {e}", path.display())),
            }
        }
        Err(Error::NoState { path: run.to_owned(), damaged })
    }

    /// The state at a path: any of its files, or a run's directory for its newest.
    ///
    /// # Errors
    /// Returns an error if the state is missing or damaged.
    pub fn at(path: &Path) -> Result<(TrainCheckpoint, Vec<String>)> {
        if path.is_dir() {
            return TrainCheckpoint::newest(path);
        }
        let dir = base::files::folder_of(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let step = name.split('.').next().unwrap_or_default();
        Ok((TrainCheckpoint::open(dir, &dir.join(format!("{step}.json")))?, vec![]))
    }

    /// Records in another run's directory that it continues from this state.
    pub(crate) fn record_fork(&self, dir: &Path) -> Result<()> {
        if self.path.parent() == Some(&dir.join("state")) {
            return Ok(());
        }
        let path = std::path::absolute(&self.path).map_err(Error::file("find", &self.path))?;
        let text = to_yaml(&BTreeMap::from([
            ("file", path.display().to_string()),
            ("step", self.step.to_string()),
        ]))?;
        write_atomically(&dir.join("forked-from.yaml"), text.as_bytes())
    }

    /// The file of its tensors, or the first of several.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's path in backticks.
    pub fn describe(&self) -> String {
        format!("`{}`", self.path.display())
    }

    /// Refuses a state that a new run with this schedule cannot start from.
    ///
    /// # Errors
    /// Returns an error if the state is past the recipe's last step, or if the learning rate would
    /// jump because it has begun to fall, in the recipe or in that of the state's own run.
    pub fn check_fork(&self, optimization: &Optimization) -> Result<()> {
        let (step, steps) = (self.step, optimization.steps);
        let bad = |message: String| Err(Error::State { path: self.path.clone(), message });
        if step >= steps {
            return bad(format!(
                "its step is {step} and the run ends with {steps}; raise `optimization.steps`"
            ));
        }
        let schedule = optimization.schedule();
        let Some((own, before, after)) = self.rates(optimization) else { return Ok(()) };
        let falls = |s: &Schedule| s.decay_start().filter(|&start| step > start);
        match (falls(&own), falls(&schedule)) {
            (Some(start), _) => bad(format!(
                "its step is {step}, its run's learning rate fell from step {start} on, and would jump from \
                 {before:.3e} to {after:.3e}; fork an earlier state, or start a new run with its weights by \
                 `init_from`"
            )),
            (None, Some(start)) => bad(format!(
                "its step is {step}, but the learning rate falls from step {start} on; fork an earlier state, or \
                 raise `optimization.steps`"
            )),
            (None, None) => Ok(()),
        }
    }

    /// Schedule of the state's own run, and the rates of the next step by it and by `optimization`,
    /// if these differ.
    fn rates(&self, optimization: &Optimization) -> Option<(Schedule, f64, f64)> {
        let schedule = optimization.schedule();
        let own = optimization_of(&self.recipe).map_or(schedule, |o| o.schedule());
        let (before, after) = (own.at(self.step), schedule.at(self.step));
        ((before - after).abs() > 1e-9 * before.max(after)).then_some((own, before, after))
    }

    /// A warning for a run that continues with another learning rate than the state's own run.
    pub fn rate_jump(&self, optimization: &Optimization) -> Option<String> {
        let (_, before, after) = self.rates(optimization)?;
        Some(format!(
            "after step {} the learning rate is {after:.3e}, where the state's own recipe has {before:.3e}",
            self.step
        ))
    }

    fn open(dir: &Path, manifest: &Path) -> Result<TrainCheckpoint> {
        let manifest = Manifest::read(manifest)?;
        manifest.verify(dir)?;
        let path = dir.join(&manifest.files[0].name);
        let bad = |message: &str| Error::State { path: path.clone(), message: message.into() };
        let file = Checkpoint::open(&path)?;
        let text = |key: &str| {
            let value = file.metadata().get(key).and_then(|v| v.as_str()).map(str::to_owned);
            value.ok_or_else(|| bad(&format!("its metadata has no `{key}`")))
        };
        let step = text("step")?.parse().map_err(|_| bad("its step is not a number"))?;
        let stats = serde_json::from_str(&text("tally")?).map_err(|_| bad("its totals are damaged"))?;
        let recipe = text("recipe")?;
        let position = in_records(text("position")?, &recipe);
        Ok(TrainCheckpoint { path, step, position, recipe, stats, source: file.section(None)? })
    }

    /// One tensor by its full name, e.g. `model/encoder.conv_in.weight`; `None` if it is missing.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        self.source.info(name)?;
        self.source.read(name, Device::Cpu).ok()
    }

    /// The error for a tensor that is missing or has another shape.
    pub fn mismatch(&self, what: &str) -> Error {
        Error::State { path: self.path.clone(), message: format!("no tensor {what}") }
    }
}

/// The `optimization` part of a state's recipe.
fn optimization_of(recipe: &str) -> Option<Optimization> {
    let recipe = Document::parse("the state's recipe", recipe).ok()?.to_json().ok()?;
    serde_json::from_value(recipe.get("optimization")?.clone()).ok()
}

/// Converts a data position counted in micro-batches, as states of versions up to 0.1 have it, to
/// records.
fn in_records(position: String, recipe: &str) -> String {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct InBatches {
        epoch: u64,
        position: u64,
    }
    let old = serde_json::from_str::<InBatches>(&position).ok().zip(optimization_of(recipe));
    let Some((InBatches { epoch, position: batches }, optimization)) = old else { return position };
    serde_json::json!({"epoch": epoch, "records": batches * optimization.micro_batch_size() as u64})
        .to_string()
}

/// Whether a run directory has a saved state, damaged or not.
///
/// # Errors
/// Returns an error if the directory cannot be read.
pub fn has_state(dir: &Path) -> Result<bool> {
    let states = dir.join("state");
    Ok(states.is_dir() && !Manifest::list(&states)?.is_empty())
}

/// Refuses a run directory that is not empty.
///
/// # Errors
/// Returns an error if the directory has entries or cannot be read.
pub fn check_unused(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let mut entries = std::fs::read_dir(dir).map_err(Error::file("read", dir))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::Occupied { path: dir.to_owned(), run: dir.join("state").is_dir() }),
    }
}

/// Metadata saved beside the tensors.
#[derive(Debug)]
pub(crate) struct CheckpointMeta<'a> {
    pub step: u64,
    pub position: &'a str,
    pub recipe: &'a str,
    pub program: &'a str,
    pub stats: RunStats,
}

impl CheckpointMeta<'_> {
    fn to_map(&self) -> BTreeMap<String, String> {
        let all = [
            ("program", self.program.to_owned()),
            ("step", self.step.to_string()),
            ("position", self.position.to_owned()),
            ("recipe", self.recipe.to_owned()),
            ("tally", to_json(&self.stats)),
        ];
        all.map(|(k, v)| (k.to_owned(), v)).into()
    }
}

/// Tensors of a state that a process writes.
#[derive(Debug, Default)]
pub(crate) struct StateTensors {
    pub tensors: Vec<(String, Tensor)>,
    /// Those that are flat slices.
    pub slices: BTreeMap<String, Slice>,
}

/// Writes a state, reads it back, and removes the states that `policy` does not keep. Several
/// processes write a file each.
pub(crate) fn save(
    run: &Path,
    meta: &CheckpointMeta<'_>,
    state: &StateTensors,
    policy: RetentionPolicy,
    world: &World,
) -> Result<()> {
    let dir = run.join("state");
    std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
    let (step, names) = (meta.step, file_names(meta.step, world.size()));
    let name = names[world.rank()].clone();
    let path = dir.join(&name);
    let (sha256, bytes) = match world.size() {
        1 => weights::save_with_digest(&path, &state.tensors, &meta.to_map())?,
        _ => weights::save_slices(&path, &state.tensors, &state.slices, &names, &meta.to_map())?,
    };
    let file = FileEntry { name, bytes, sha256 };
    file.verify(&dir)?;
    let files = world.gather_values(&file)?;
    if !world.is_first() {
        return Ok(());
    }
    if let Some(file) = files.iter().find(|file| !dir.join(&file.name).is_file()) {
        let message = format!("`{}` is not there; all processes must see one `state/`", file.name);
        return Err(Error::State { path: dir, message });
    }
    let manifest = Manifest::new(step, policy.is_milestone(step), files);
    write_atomically(&Manifest::path(&dir, step), to_json(&manifest).as_bytes())?;
    remove_surplus(&dir, step, policy.newest.max(1))
}

/// Names of a state's files.
fn file_names(step: u64, processes: usize) -> Vec<String> {
    let one = |rank| format!("step-{step:09}.rank-{rank:05}-of-{processes:05}.safetensors");
    match processes {
        1 => vec![format!("step-{step:09}.safetensors")],
        _ => (0..processes).map(one).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save_one(
        run: &Path,
        meta: &CheckpointMeta<'_>,
        tensors: Vec<(String, Tensor)>,
        policy: RetentionPolicy,
    ) -> Result<()> {
        let state = StateTensors { tensors, slices: BTreeMap::new() };
        save(run, meta, &state, policy, &World::default())
    }

    fn run_with(steps: &[u64], policy: RetentionPolicy) -> (tempfile::TempDir, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let tensors = || vec![("a".to_owned(), Tensor::from_slice(&[1f32, 2.0]))];
        for &step in steps {
            let stats = RunStats { samples: 4 * step, seconds: 0.5, skipped: 0 };
            let meta = CheckpointMeta { step, position: "p", recipe: "r", program: "test", stats };
            save_one(dir.path(), &meta, tensors(), policy).unwrap();
        }
        let mut left: Vec<String> = std::fs::read_dir(dir.path().join("state"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.ends_with("json"))
            .collect();
        left.sort();
        (dir, left)
    }

    #[test]
    fn the_newest_and_the_milestones_stay() {
        let name = |step: u64| format!("step-{step:09}.json");
        let (dir, left) = run_with(&[1, 2, 3, 4, 5, 6, 7], RetentionPolicy { newest: 2, milestone: 3 });
        assert_eq!(left, [3, 6, 7].map(name));
        // Going back to 6 and on: 7 belongs to a past that did not happen; 3 stays though
        // milestones are off now.
        let meta = CheckpointMeta {
            step: 6,
            position: "p",
            recipe: "r",
            program: "test",
            stats: RunStats::default(),
        };
        save_one(dir.path(), &meta, vec![], RetentionPolicy { newest: 1, milestone: 0 }).unwrap();
        let left = Manifest::list(&dir.path().join("state")).unwrap();
        assert_eq!(
            left.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect::<Vec<_>>(),
            [name(3), name(6)]
        );
    }

    const RECIPE: &str = "optimization: {steps: 100, batch_size: 12, micro_batches: 3, lr: 0.002, warmup: 10, schedule: \
         {type: wsd, decay_fraction: 0.2}, adamw: {betas: [0.9, 0.95], eps: 1.0e-8, weight_decay: 0.05, decay: matrices}, \
         clip: 1.0, ema: null, precision: fp32}";

    #[test]
    fn places_of_old_states_are_told_in_records() {
        let text = |position: &str| in_records(position.to_owned(), RECIPE);
        assert_eq!(text(r#"{"epoch":3,"position":22}"#), r#"{"epoch":3,"records":88}"#);
        assert_eq!(text(r#"{"epoch":3,"records":22}"#), r#"{"epoch":3,"records":22}"#);
        assert_eq!(text("p"), "p");
    }

    /// A run that ended at a rate of zero and continues, and one that continues with another rate.
    #[test]
    fn a_rate_that_jumps_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let meta = CheckpointMeta {
            step: 100,
            position: "p",
            recipe: RECIPE,
            program: "test",
            stats: RunStats::default(),
        };
        save_one(dir.path(), &meta, vec![], RetentionPolicy { newest: 9, milestone: 0 }).unwrap();
        let saved = TrainCheckpoint::newest(dir.path()).unwrap().0;
        let told = |recipe: &str| saved.rate_jump(&optimization_of(recipe).unwrap());
        assert_eq!(told(RECIPE), None);
        let longer = RECIPE.replace("steps: 100", "steps: 200");
        assert!(told(&longer).unwrap().contains("is 2.000e-3, where the state's own recipe has 0.000e0"));
        let meta = CheckpointMeta { step: 50, ..meta };
        save_one(dir.path(), &meta, vec![], RetentionPolicy { newest: 9, milestone: 0 }).unwrap();
        let saved = TrainCheckpoint::newest(dir.path()).unwrap().0;
        let other = optimization_of(&RECIPE.replace("lr: 0.002", "lr: 0.004")).unwrap();
        saved.check_fork(&other).unwrap();
        assert!(saved.rate_jump(&other).unwrap().contains("4.000e-3"));
    }

    #[test]
    fn a_fork_does_not_let_the_rate_jump() {
        let dir = tempfile::tempdir().unwrap();
        let of = |step: u64, recipe: &str| {
            let meta =
                CheckpointMeta { step, position: "p", recipe, program: "test", stats: RunStats::default() };
            save_one(dir.path(), &meta, vec![], RetentionPolicy { newest: 9, milestone: 0 }).unwrap();
            TrainCheckpoint::newest(dir.path()).unwrap().0
        };
        let cosine = RECIPE.replace("{type: wsd, decay_fraction: 0.2}", "{type: cosine, end_lr: 0.0}");
        let long = |recipe: &str| recipe.replace("steps: 100", "steps: 200");
        let longer = |recipe: &str| optimization_of(&long(recipe)).unwrap();
        let (cosine, long) = (cosine.as_str(), long(RECIPE));
        let same = |recipe: &str| optimization_of(recipe).unwrap();
        // (state's step, its recipe, the new optimization, what is said)
        for (step, recipe, optimization, said) in [
            (70, RECIPE, longer(RECIPE), None),
            (80, RECIPE, longer(RECIPE), None),
            (
                90,
                RECIPE,
                longer(RECIPE),
                Some("its run's learning rate fell from step 80 on, and would jump from 5"),
            ),
            (90, RECIPE, same(RECIPE), None),
            (5, cosine, longer(cosine), None),
            (50, cosine, longer(cosine), Some("fell from step 10 on")),
            (50, cosine, same(cosine), None),
            (50, cosine, same(RECIPE), Some("fell from step 10 on")),
            (50, RECIPE, same(cosine), Some("falls from step 10 on")),
            (95, long.as_str(), same(RECIPE), Some("falls from step 80 on")),
        ] {
            let jump = of(step, recipe).rate_jump(&optimization);
            assert_eq!(jump.is_some(), said.is_some(), "{step}: {jump:?}");
            let found = of(step, recipe).check_fork(&optimization).err().map(|e| e.to_string());
            match said {
                None => assert_eq!(found, None, "{step}"),
                Some(said) => {
                    assert!(found.as_deref().is_some_and(|e| e.contains(said)), "{step}: {found:?}")
                }
            }
        }
    }

    #[test]
    fn damage_of_any_kind_leads_to_the_state_before() {
        let flip = |path: &Path| {
            let mut bytes = std::fs::read(path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(path, bytes).unwrap();
        };
        let cut = |path: &Path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        };
        let gone = |path: &Path| std::fs::remove_file(path).unwrap();
        type Harm<'a> = &'a dyn Fn(&Path);
        for (harm, suffix, says) in [
            (&flip as Harm, "safetensors", "SHA-256"),
            (&cut, "safetensors", "bytes, found"),
            (&gone, "safetensors", "cannot read"),
            (&cut, "json", "damaged"),
            (&flip, "json", "damaged"),
        ] {
            let (dir, _) = run_with(&[1, 2], RetentionPolicy { newest: 2, milestone: 0 });
            harm(&dir.path().join("state/step-000000002").with_extension(suffix));
            let (saved, passed) = TrainCheckpoint::newest(dir.path()).unwrap();
            assert_eq!((saved.step, passed.len(), saved.stats.samples), (1, 1, 4));
            assert!(passed[0].contains(says), "{suffix}: {}", passed[0]);
        }
        let (dir, _) = run_with(&[1], RetentionPolicy { newest: 1, milestone: 0 });
        flip(&dir.path().join("state/step-000000001.safetensors"));
        let error = TrainCheckpoint::newest(dir.path()).unwrap_err().to_string();
        assert!(error.contains("SHA-256"), "{error}");
    }
}
