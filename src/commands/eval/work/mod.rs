//! The work itself: images are read on other threads while networks look at those before.

mod step;
mod sums;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use base::Progress;
use eval::{PixelMetrics, prefetch};
use serde_json::Value as Json;
use tch::Device;

use super::images::{ImageSet, OneSize, Read};
use super::live::{Generator, Reconstructor};
use super::networks::Networks;
use super::parts::Shard;
use super::predict::Predictor;
use super::state::State;
use crate::context::Context;
use crate::inputs::Skipped;

/// What is done with the images of a phase.
pub enum Job<'a> {
    /// They are judged.
    Samples(ImageSet),
    /// They are compared with.
    Reference(ImageSet),
    /// They are judged, each against its original.
    Pairs(ImageSet, ImageSet),
    /// A tokenizer's rendering of them is judged against them.
    Reconstruct(Reconstruction<'a>),
    /// A model makes them, and they are judged.
    Generate(&'a Generator),
    /// A transformer predicts their codes.
    Predict(&'a Predictor),
}

/// What a tokenizer is given and how its rendering is judged.
pub struct Reconstruction<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Reconstructor,
    /// Images at its size.
    pub images: ImageSet,
    /// The side to which renderings and originals are brought before they are scored; none for the tokenizer's own.
    pub side: Option<u32>,
    /// What stands for the reference.
    pub reference: Originals,
}

/// What reconstructions are compared with as a set.
pub enum Originals {
    /// Something else than the originals.
    Elsewhere,
    /// What the tokenizer is given.
    AsGiven,
    /// The same images, cropped to the size of the scores.
    Cropped(ImageSet),
}

/// A walk over images.
pub struct Phase<'a> {
    /// As it is called where progress is kept.
    pub name: &'static str,
    /// What is done.
    pub job: Job<'a>,
}

/// Images that belong together: one of each set.
type Row = Vec<std::result::Result<Read, Skipped>>;

impl Phase<'_> {
    /// How many images.
    pub fn len(&self) -> u64 {
        match &self.job {
            Job::Samples(set) | Job::Reference(set) | Job::Pairs(set, _) => set.len() as u64,
            Job::Reconstruct(r) => r.images.len() as u64,
            Job::Generate(generator) => generator.len(),
            Job::Predict(predictor) => predictor.len(),
        }
    }

    /// The sets that are read side by side.
    fn sets(&self) -> Vec<ImageSet> {
        match &self.job {
            Job::Samples(set) | Job::Reference(set) => vec![set.clone()],
            Job::Pairs(a, b) => vec![a.clone(), b.clone()],
            Job::Reconstruct(r) => match &r.reference {
                Originals::Cropped(originals) => vec![r.images.clone(), originals.clone()],
                Originals::AsGiven | Originals::Elsewhere => vec![r.images.clone()],
            },
            Job::Generate(_) => vec![],
            Job::Predict(predictor) => predictor.images().into_iter().cloned().collect(),
        }
    }
}

/// Where a run keeps what it has, and what it belongs to.
pub struct Keeping<'a> {
    /// The file; none for a run that is not kept.
    pub file: Option<&'a Path>,
    /// What the run is.
    pub run: &'a Json,
    /// Which part of it.
    pub shard: Shard,
}

/// How often a run is written to its file.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// A run that walks.
pub struct Walk<'a> {
    /// The networks.
    pub networks: &'a Networks,
    /// Where they compute.
    pub device: Device,
    /// Images that go through them together.
    pub batch_size: usize,
    /// Where the state is kept.
    pub keeping: Keeping<'a>,
    /// The size that all images have.
    pub one_size: OneSize,
    /// What is computed of pairs, beside PSNR and LPIPS.
    pub pixels: PixelMetrics,
}

impl Walk<'_> {
    /// Walks over all phases; false if a signal stopped it.
    pub fn run(&mut self, phases: &[Phase], state: &mut State, context: &Context) -> Result<bool> {
        let stop = crate::context::stop_on_signal()?;
        for phase in phases {
            if !self.phase(phase, state, &stop, context)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn phase(
        &mut self,
        phase: &Phase,
        state: &mut State,
        stop: &AtomicBool,
        context: &Context,
    ) -> Result<bool> {
        let done = state.tally.done.get(phase.name).copied().unwrap_or(0);
        let todo: Vec<u64> = self.keeping.shard.share(phase.len()).skip(done as usize).collect();
        match (done, todo.is_empty(), self.keeping.file) {
            (0, ..) | (_, _, None) => {}
            (_, false, _) => context.printer.note(&format!("{}: continuing after {done}", phase.name)),
            (_, true, Some(file)) => context.printer.note(&format!(
                "{}: all {done} were counted before, in `{}`; nothing is read again",
                phase.name,
                file.display()
            )),
        }
        let mut progress = context.printer.clone();
        progress.start(phase.name, Some(todo.len() as u64));
        let (sets, end) = (phase.sets(), done + todo.len() as u64);
        let read = |indices: &[u64]| -> Vec<Row> { sets.iter().map(|set| set.read(indices)).collect() };
        let mut saved = Instant::now();
        let batches = todo.chunks(self.batch_size).map(<[u64]>::to_vec);
        let complete = prefetch(batches, read, |indices, read| -> Result<bool> {
            let n = indices.len() as u64;
            if let Some(step) = self.step(phase, indices, read, state)? {
                self.feed(step, state)?;
            }
            let done = state.tally.done.entry(phase.name.to_owned()).or_default();
            *done += n;
            progress.advance(n);
            if stop.load(Ordering::Relaxed) {
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

    fn save(&self, state: &State) -> Result<()> {
        match self.keeping.file {
            Some(file) => state.save(file, self.keeping.run, self.keeping.shard),
            None => Ok(()),
        }
    }
}
