//! A run of loaded models: conditions → images.

use std::ops::{ControlFlow, Range};

use ar_model::{Conditioning, Decoder};
use base::{ImagesU8, SampleStream};
use sampler::{Pipeline, RandomSource};
use settings::Rng;
use tch::Device;

use crate::condition::Condition;
use crate::config::DrawConfig;
use crate::error::Result;
use crate::generator::Generator;
use crate::picture::Picture;
use crate::provenance::{Provenance, RunSettings};
use crate::target::Targets;

/// An image of a run.
#[derive(Debug)]
pub struct SampledImage<'t> {
    /// Its number in the run.
    pub index: u64,
    /// Its class or prompt.
    pub condition: &'t Condition,
    /// Its pixels.
    pub picture: Picture,
}

impl SampledImage<'_> {
    /// Provenance of the image in a run of these settings.
    pub fn provenance(&self, run: &RunSettings) -> Provenance {
        Provenance { run: run.clone(), index: self.index, condition: self.condition.name() }
    }
}

/// A run: images of one [`DrawConfig`].
pub struct Run<'g> {
    generator: &'g Generator,
    pipeline: Pipeline<'g, Decoder, tokenizer::Model>,
    draw: DrawConfig,
    settings: RunSettings,
    /// Forward passes of the transformer, and codes drawn in them.
    passes: usize,
    codes: usize,
}

impl Generator {
    /// Begins a run.
    ///
    /// # Errors
    /// Returns an error if libtorch's settings cannot be read.
    pub fn run(&self, draw: &DrawConfig) -> Result<Run<'_>> {
        let settings = self.settings(draw)?;
        let (pipeline, draw) = (self.pipeline()?, draw.clone());
        Ok(Run { generator: self, pipeline, draw, settings, passes: 0, codes: 0 })
    }
}

impl Run<'_> {
    /// Settings that all its images share.
    pub fn settings(&self) -> &RunSettings {
        &self.settings
    }

    /// Codes that a forward pass gave on average.
    pub fn codes_per_pass(&self) -> f64 {
        self.codes as f64 / self.passes.max(1) as f64
    }

    /// Makes the images of `targets` from number `first` on, in batches, until `each` breaks off.
    ///
    /// # Errors
    /// Returns an error if an image cannot be made.
    pub fn batches<'t>(
        &mut self,
        targets: &'t Targets,
        first: u64,
        batch_size: u64,
        each: &mut dyn FnMut(Vec<SampledImage<'t>>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.begin();
        for batch in targets.batches(first, batch_size) {
            if each(self.batch(targets, batch)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Seeds libtorch's generator, if the run draws from it.
    pub(crate) fn begin(&self) {
        if self.draw.rng == Rng::Torch {
            tch::manual_seed(self.draw.seed as i64);
        }
    }

    /// Makes a batch of the images of `targets`.
    pub(crate) fn batch<'t>(
        &mut self,
        targets: &'t Targets,
        batch: Range<u64>,
    ) -> Result<Vec<SampledImage<'t>>> {
        let conditions = targets.conditions_of(&batch, self.generator.config().device);
        let indices: Vec<u64> = batch.collect();
        let pictures = Picture::from_batch(&self.images(&indices, &conditions)?)?;
        let parts = indices.into_iter().zip(conditions).zip(pictures);
        Ok(parts.map(|((index, condition), picture)| SampledImage { index, condition, picture }).collect())
    }

    /// Forward passes of the transformer so far, and codes drawn in them.
    pub(crate) fn passes_and_codes(&self) -> (usize, usize) {
        (self.passes, self.codes)
    }

    /// Adds the passes and codes of other processes.
    pub(crate) fn add_passes(&mut self, (passes, codes): (usize, usize)) {
        self.passes += passes;
        self.codes += codes;
    }

    /// (B, 3, S, S) images of these numbers and conditions, on the CPU.
    ///
    /// # Errors
    /// Returns an error if an image cannot be made.
    pub fn images(&mut self, indices: &[u64], conditions: &[&Condition]) -> Result<ImagesU8> {
        self.images_of(indices, &self.generator.conditioning(conditions)?)
    }

    /// (B, 3, S, S) images of these numbers and of (B) conditions as the transformer takes them, on
    /// the CPU.
    ///
    /// # Errors
    /// Returns an error if an image cannot be made.
    pub fn images_of(&mut self, indices: &[u64], cond: &Conditioning) -> Result<ImagesU8> {
        let streams: Vec<SampleStream> =
            indices.iter().map(|&index| SampleStream { seed: self.draw.seed, index }).collect();
        let source = match self.draw.rng {
            Rng::Image => RandomSource::Streams(&streams),
            Rng::Gumbel => RandomSource::Gumbel(&streams),
            Rng::Torch => RandomSource::Torch,
        };
        let (generation, images) = self.pipeline.images(cond, &self.draw.sampling, source, self.draw.mode)?;
        self.passes += generation.passes;
        self.codes += generation.codes.tensor().numel();
        let rounded = sampler::resize(images, self.settings.size)?.to_u8();
        Ok(ImagesU8::new(rounded.into_tensor().to_device(Device::Cpu))?)
    }
}
