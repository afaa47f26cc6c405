//! The loop: images are read on other threads while networks and metrics work on those before.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backbones::Features;
use base::{ImagesU8, Progress, Skipped};
use serde_json::Value as Json;

use crate::Result;
use crate::batch::{BatchFeatures, EvalBatch, Item};
use crate::image_set::{OneSize, Read, stack};
use crate::networks::{Networks, Role};
use crate::prefetch::prefetch;
use crate::shards::Shard;
use crate::source::{ImageSource, Input, Phase, Side};
use crate::state::{Accumulators, RunState};

/// Images that belong together: one of each input.
type Row = Vec<std::result::Result<Read, Skipped>>;

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
    /// Set by a signal to stop after the current batch.
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
        for phase in phases {
            if !self.phase(&**phase, state, progress)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn phase(
        &mut self,
        source: &dyn ImageSource,
        state: &mut RunState,
        progress: &mut dyn Progress,
    ) -> Result<bool> {
        let name = source.phase();
        let done = state.totals.done.get(name).copied().unwrap_or(0);
        let todo: Vec<u64> = self.partial.shard.share(source.num_images()).skip(done as usize).collect();
        self.tell_done(name, done, todo.is_empty(), progress);
        progress.start(name, Some(todo.len() as u64));
        let (inputs, end) = (source.inputs(), done + todo.len() as u64);
        let read = |indices: &[u64]| -> Vec<Row> { inputs.iter().map(|i| i.set.read(indices)).collect() };
        let mut saved = Instant::now();
        let batches = todo.chunks(self.batch_size).map(<[u64]>::to_vec);
        let complete = prefetch(batches, read, |indices, read| -> Result<bool> {
            let n = indices.len() as u64;
            if let Some(batch) = self.batch(source, &inputs, &indices, read, state)? {
                self.update(&batch, state)?;
            }
            let done = state.totals.done.entry(name.to_owned()).or_default();
            *done += n;
            progress.advance(n);
            if self.stop.load(Ordering::Relaxed) {
                return Ok(*done == end);
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

    fn save(&self, state: &RunState) -> Result<()> {
        match self.partial.file {
            Some(file) => state.save(file, self.partial.run, &serde_json::to_string(&self.partial.shard)?),
            None => Ok(()),
        }
    }

    /// Makes a batch of what was read; `None` if no image of it could be read.
    fn batch(
        &mut self,
        source: &dyn ImageSource,
        inputs: &[Input],
        indices: &[u64],
        read: Vec<Row>,
        state: &mut RunState,
    ) -> Result<Option<EvalBatch>> {
        let batch = if inputs.is_empty() {
            let item = |&index| Item { index, name: format!("{index:06}"), class: None, prompt: None };
            let batch = source.batch(indices.iter().map(item).collect(), vec![])?;
            if let Some(samples) = &batch.samples {
                let (_, _, height, width) = samples.tensor().size4()?;
                self.one_size.check("an image that the model makes", (width as u32, height as u32))?;
            }
            batch
        } else {
            let (items, sides) = self.usable(inputs, indices, read, state)?;
            if items.is_empty() {
                return Ok(None);
            }
            let images: Result<Vec<ImagesU8>> =
                sides.iter().map(|side| stack(side.iter().map(|r| &r.image))).collect();
            count(inputs, &sides, state);
            source.batch(items, images?)?
        };
        // Images that have no files.
        if batch.is_judged() && inputs.iter().all(|input| input.side != Some(Side::Samples)) {
            state.totals.samples.images += batch.items.len() as u64;
        }
        Ok(Some(batch))
    }

    /// The images that could be read in every input, side by side.
    fn usable(
        &mut self,
        inputs: &[Input],
        indices: &[u64],
        read: Vec<Row>,
        state: &mut RunState,
    ) -> Result<(Vec<Item>, Vec<Vec<Read>>)> {
        let mut sides: Vec<Vec<Read>> = read.iter().map(|_| vec![]).collect();
        let mut items = vec![];
        let mut rows: Vec<_> = read.into_iter().map(Vec::into_iter).collect();
        for &index in indices {
            let row: Row = rows.iter_mut().filter_map(Iterator::next).collect();
            let row = match row.into_iter().collect::<std::result::Result<Vec<Read>, Skipped>>() {
                Ok(row) => row,
                Err(skipped) => {
                    state.totals.skipped.push(skipped);
                    continue;
                }
            };
            // Images that only a model sees may have another size.
            for (image, _) in row.iter().zip(inputs).filter(|(_, input)| input.side.is_some()) {
                self.one_size.check(&image.name, image.image.dimensions())?;
            }
            let Read { name, class, prompt, .. } = &row[0];
            items.push(Item { index, name: name.clone(), class: *class, prompt: prompt.clone() });
            sides.iter_mut().zip(row).for_each(|(side, image)| side.push(image));
        }
        Ok((items, sides))
    }

    /// Updates features, metrics and counts with a batch.
    fn update(&self, batch: &EvalBatch, state: &mut RunState) -> Result<()> {
        let features = BatchFeatures {
            samples: self.extract(batch, batch.samples.as_ref(), &mut state.samples)?,
            reference: self.extract(batch, batch.reference.as_ref(), &mut state.reference)?,
        };
        if batch.is_judged() {
            for class in batch.items.iter().filter_map(|item| item.class) {
                *state.totals.classes.entry(class).or_default() += 1;
            }
        }
        for (_, metric) in &mut state.metrics {
            metric.update(batch, &features)?;
        }
        state.totals.gallery.keep_thumbnails(batch)
    }

    /// Features of one side, added to its sums.
    fn extract(
        &self,
        batch: &EvalBatch,
        images: Option<&ImagesU8>,
        accumulators: &mut Accumulators,
    ) -> Result<BTreeMap<Role, Features>> {
        let indices: Vec<u64> = batch.items.iter().map(|item| item.index).collect();
        let mut found = BTreeMap::new();
        let Some(images) = images else { return Ok(found) };
        for (&role, accumulator) in accumulators {
            let features = self.networks.extract(role, images, || batch.names())?;
            accumulator.update(&features, &indices)?;
            found.insert(role, features);
        }
        Ok(found)
    }
}

/// Counts the images that were read for the sides that they belong to.
fn count(inputs: &[Input], read: &[Vec<Read>], state: &mut RunState) {
    for (input, read) in inputs.iter().zip(read) {
        let side = match input.side {
            Some(Side::Samples) => &mut state.totals.samples,
            Some(Side::Reference) => &mut state.totals.reference,
            None => continue,
        };
        side.add(read);
    }
}
