//! The loop: images are read on other threads while networks and metrics work on those before.
//! Several processes take turns by batch; the first has the sums, and adds in the order of batches.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backbones::Features;
use base::Progress;
use dist::World;
use serde_json::Value as Json;

use crate::gallery::Candidates;
use crate::image_set::OneSize;
use crate::measure::{Measurement, Row};
use crate::measured::{BatchFacts, MeasuredBatch};
use crate::networks::{Networks, Role};
use crate::prefetch::prefetch;
use crate::shards::Shard;
use crate::source::{ImageSource, Input, Phase};
use crate::state::{Accumulators, RunState};
use crate::{Error, Result};

/// File of a run that can be resumed, and the run that it belongs to.
#[derive(Clone, Copy)]
pub struct Partial<'a> {
    /// The file; none for a run that is not saved.
    pub file: Option<&'a Path>,
    /// Description of the run.
    pub run: &'a Json,
    /// Part of the run.
    pub shard: Shard,
}

/// Interval between saves.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// The loop over the images of a run.
pub struct EvalLoop<'a> {
    /// Feature networks.
    pub networks: &'a Networks,
    /// Images of a batch.
    pub batch_size: usize,
    /// Storage of the partial state.
    pub partial: Partial<'a>,
    /// The size that all images have.
    pub one_size: OneSize,
    /// Processes that share the batches; the first has the state.
    pub world: &'a World,
    /// Set by a signal to stop after the current batch of each process.
    pub stop: &'a AtomicBool,
}

impl EvalLoop<'_> {
    /// Runs all phases; false if it was stopped.
    pub fn run(
        &mut self,
        phases: &[Phase],
        state: &mut RunState,
        progress: &mut dyn Progress,
    ) -> Result<bool> {
        let mut candidates = Candidates::after(&state.totals.gallery);
        for phase in phases {
            if !self.phase(&**phase, state, &mut candidates, progress)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn phase(
        &mut self,
        source: &dyn ImageSource,
        state: &mut RunState,
        candidates: &mut Candidates,
        progress: &mut dyn Progress,
    ) -> Result<bool> {
        let (name, world) = (source.phase(), self.world);
        let done = state.totals.done.get(name).copied().unwrap_or(0);
        let done = world.from_first(|| Ok::<_, Error>(done))?;
        let todo: Vec<u64> = self.partial.shard.share(source.num_images()).skip(done as usize).collect();
        self.tell_done(name, done, todo.is_empty(), progress);
        progress.start(name, Some(todo.len() as u64));
        let (inputs, end) = (source.inputs(), done + todo.len() as u64);
        let read = |indices: &[u64]| -> Vec<Row> { inputs.iter().map(|i| i.set.read(indices)).collect() };
        let mut saved = Instant::now();
        let complete =
            prefetch(turns(&todo, self.batch_size, world), read, |indices, read| -> Result<bool> {
                let own = self.measure(source, &inputs, &indices, read, state, candidates)?;
                for batch in world.gather_packed(own, MeasuredBatch::pack, MeasuredBatch::unpack)? {
                    let n = batch.facts.images;
                    self.add(batch, state)?;
                    *state.totals.done.entry(name.to_owned()).or_default() += n;
                    progress.advance(n);
                }
                let done = state.totals.done.get(name).copied().unwrap_or(0);
                let stopped = || Ok::<_, Error>(self.stop.load(Ordering::Relaxed) && done != end);
                if world.from_first(stopped)? {
                    return Ok(false);
                }
                if saved.elapsed() > SAVE_EVERY {
                    self.save(state)?;
                    saved = Instant::now();
                }
                Ok(true)
            })?;
        progress.finish();
        self.save(state)?;
        Ok(complete)
    }

    fn tell_done(&self, name: &str, done: u64, complete: bool, progress: &mut dyn Progress) {
        match (done, complete, self.partial.file) {
            (0, ..) | (_, _, None) => {}
            (_, false, _) => progress.message(&format!("{name}: continuing after {done}")),
            (_, true, Some(file)) => progress.message(&format!(
                "{name}: all {done} were counted before, in `{}`; nothing is read again",
                file.display()
            )),
        }
    }

    /// Saves the state, at the process that has it.
    fn save(&self, state: &RunState) -> Result<()> {
        match self.partial.file.filter(|_| self.world.is_first()) {
            Some(file) => state.save(file, self.partial.run, &serde_json::to_string(&self.partial.shard)?),
            None => Ok(()),
        }
    }

    fn measure(
        &mut self,
        source: &dyn ImageSource,
        inputs: &[Input],
        indices: &[u64],
        read: Vec<Row>,
        state: &RunState,
        candidates: &mut Candidates,
    ) -> Result<MeasuredBatch> {
        if let Some(first) = indices.first() {
            self.world.note(&format!("{}, image {first}", source.phase()));
        }
        // Before its own batch, the first process has seen all batches before.
        let one_size = self.world.is_first().then_some(&mut self.one_size);
        let networks = self.networks;
        Measurement { networks, source, inputs, state, one_size, candidates }.batch(indices, read)
    }

    /// Adds a batch to features, metrics and counts.
    fn add(&mut self, batch: MeasuredBatch, state: &mut RunState) -> Result<()> {
        let MeasuredBatch { facts, features, metrics } = batch;
        let BatchFacts { images: _, items, judged, skipped, samples, reference, sizes, thumbs } = facts;
        sizes.iter().try_for_each(|(name, size)| self.one_size.check(name, *size))?;
        let totals = &mut state.totals;
        totals.skipped.extend(skipped);
        totals.samples.merge(&samples);
        totals.reference.merge(&reference);
        let indices: Vec<u64> = items.iter().map(|item| item.index).collect();
        add_features(&mut state.samples, &features.samples, &indices)?;
        add_features(&mut state.reference, &features.reference, &indices)?;
        for class in items.iter().filter_map(|item| item.class).filter(|_| judged) {
            *totals.classes.entry(class).or_default() += 1;
        }
        for (metric, state) in &mut state.metrics {
            if let Some(values) = metrics.get(metric.name()) {
                state.add(values, &items)?;
            }
        }
        thumbs.into_iter().for_each(|(class, thumb)| totals.gallery.keep(thumb, class));
        Ok(())
    }
}

/// This process's batch of each round; empty where a round has too few.
fn turns<'a>(
    todo: &'a [u64],
    batch_size: usize,
    world: &World,
) -> impl Iterator<Item = Vec<u64>> + Send + 'a {
    let (rank, size) = (world.rank(), world.size());
    let batches = todo.chunks(batch_size);
    let rounds = batches.len().div_ceil(size);
    let mut batches = batches.skip(rank).step_by(size);
    (0..rounds).map(move |_| batches.next().unwrap_or_default().to_vec())
}

fn add_features(sums: &mut Accumulators, features: &BTreeMap<Role, Features>, indices: &[u64]) -> Result<()> {
    for (role, features) in features {
        let sum = sums.get_mut(role).ok_or(Error::Internal("features that nothing sums"))?;
        sum.update(features, indices)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_process_takes_all_batches() {
        let todo: Vec<u64> = (0..5).collect();
        let taken: Vec<_> = turns(&todo, 2, &World::default()).collect();
        assert_eq!(taken, [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(turns(&[], 2, &World::default()).count(), 0);
    }
}
