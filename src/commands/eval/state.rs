//! All that a run has gathered: sums, and little else. It can be saved, continued and merged.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use eval::{CodebookUsage, Collector, Gather, Mean, Reconstruction};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tch::Tensor;
use weights::Checkpoint;

use super::digest::Digest;
use super::networks::Role;
use super::thumbs::Gallery;
use crate::failure::Failure;
use crate::inputs::Skipped;

/// One side of the comparison.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Side {
    /// Images that were scored.
    pub images: u64,
    /// Of their names and pixels.
    pub digest: Digest,
    /// Images whose files hold something else than 8-bit RGB: what, and how many.
    pub converted: BTreeMap<String, u64>,
}

/// Scores of the pairs of one class.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ClassScores {
    /// Images.
    pub images: u64,
    /// dB; without identical pairs.
    pub psnr: Mean,
    /// Structural similarity.
    pub ssim: Mean,
    /// LPIPS.
    pub lpips: Mean,
}

/// Counts of values in bins of one width.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Histogram {
    /// Where the first bin begins.
    pub low: f64,
    /// Where the last ends; what lies beyond is counted in it.
    pub high: f64,
    /// How many.
    pub counts: Vec<u64>,
}

impl Histogram {
    fn new(low: f64, high: f64) -> Self {
        const BINS: usize = 40;
        Histogram { low, high, counts: vec![0; BINS] }
    }

    /// Counts a value; infinite ones are left out.
    pub fn add(&mut self, value: f64) {
        if value.is_finite() {
            let bins = self.counts.len() as f64;
            let at = ((value - self.low) / (self.high - self.low) * bins).floor().clamp(0.0, bins - 1.0);
            self.counts[at as usize] += 1;
        }
    }

    fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }
}

/// What is gathered beside features: all of it plain numbers and texts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tally {
    /// Images of each phase that are done, skipped ones included.
    pub done: BTreeMap<String, u64>,
    /// What is judged.
    pub samples: Side,
    /// What it is compared with.
    pub reference: Side,
    /// PSNR and SSIM.
    pub pairs: Reconstruction,
    /// LPIPS.
    pub lpips: Mean,
    /// How the scores of single images are spread.
    pub spread: BTreeMap<String, Histogram>,
    /// Scores by class.
    pub classes: BTreeMap<i64, ClassScores>,
    /// How the codebook is used.
    pub codebook: Option<CodebookUsage>,
    /// What could not be read.
    pub skipped: Vec<Skipped>,
    /// Some images to look at.
    pub gallery: Gallery,
}

impl Tally {
    fn new() -> Self {
        let spread = [("psnr", 0.0, 60.0), ("ssim", 0.0, 1.0), ("lpips", 0.0, 1.0)];
        let spread = spread.map(|(name, low, high)| (name.to_owned(), Histogram::new(low, high)));
        Tally {
            done: BTreeMap::new(),
            samples: Side::default(),
            reference: Side::default(),
            pairs: Reconstruction::default(),
            lpips: Mean::default(),
            spread: spread.into(),
            classes: BTreeMap::new(),
            codebook: None,
            skipped: vec![],
            gallery: Gallery::default(),
        }
    }

    fn merge(&mut self, other: Tally) -> Result<()> {
        for (phase, n) in other.done {
            *self.done.entry(phase).or_default() += n;
        }
        self.samples.merge(&other.samples);
        self.reference.merge(&other.reference);
        self.pairs.merge(&other.pairs);
        self.lpips.merge(&other.lpips);
        for (name, histogram) in &other.spread {
            if let Some(mine) = self.spread.get_mut(name) {
                mine.merge(histogram);
            }
        }
        for (class, theirs) in other.classes {
            let mine = self.classes.entry(class).or_default();
            mine.images += theirs.images;
            mine.psnr.merge(&theirs.psnr);
            mine.ssim.merge(&theirs.ssim);
            mine.lpips.merge(&theirs.lpips);
        }
        match (&mut self.codebook, other.codebook) {
            (Some(mine), Some(theirs)) => mine.merge(&theirs)?,
            (mine @ None, theirs) => *mine = theirs,
            _ => {}
        }
        self.skipped.extend(other.skipped);
        self.gallery.merge(other.gallery);
        Ok(())
    }
}

impl Side {
    fn merge(&mut self, other: &Side) {
        self.images += other.images;
        self.digest.add(other.digest);
        for (what, n) in &other.converted {
            *self.converted.entry(what.clone()).or_default() += n;
        }
    }
}

/// Everything gathered so far.
#[derive(Debug)]
pub struct State {
    /// Features of what is judged.
    pub samples: BTreeMap<Role, Collector>,
    /// Features of what it is compared with.
    pub reference: BTreeMap<Role, Collector>,
    /// All else.
    pub tally: Tally,
}

/// Which of how many parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// 0 to `world` - 1.
    pub rank: u64,
    /// How many there are.
    pub world: u64,
}

/// What must be kept of each network's features, for both sides.
pub type Wanted = [BTreeMap<Role, Gather>; 2];

const SIDES: [&str; 2] = ["samples", "reference"];

impl State {
    /// Before the first image.
    pub fn new(samples: BTreeMap<Role, Collector>, reference: BTreeMap<Role, Collector>) -> Self {
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
                let loaded = Collector::load(gather.clone(), source.as_ref(), &prefix, &note(&prefix)?)?;
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

/// Merges the parts of a run in the order of their ranks; all must be there, each once and complete.
pub fn merge_files(
    paths: &[std::path::PathBuf],
    run: &Json,
    wanted: &Wanted,
    phases: &[(String, u64)],
) -> Result<State> {
    let mut parts = vec![];
    for path in paths {
        let (state, shard) = State::load(path, run, wanted)?;
        for (phase, images) in phases {
            let mine = (0..*images).filter(|i| i % shard.world == shard.rank).count() as u64;
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

fn other_run(path: &Path, found: &Json, expected: &Json) -> Failure {
    let differ: Vec<&str> = match (found.as_object(), expected.as_object()) {
        (Some(f), Some(e)) => e.keys().filter(|k| f.get(*k) != e.get(*k)).map(String::as_str).collect(),
        _ => vec![],
    };
    Failure::new(format!("`{}` belongs to another run; these differ: {}", path.display(), differ.join(", ")))
        .hint("give another file with `--partial`, or remove this one to begin anew")
}
