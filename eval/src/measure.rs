//! The part of the work on a batch that needs its images: models, networks, and scores of single
//! images.

use std::collections::BTreeMap;

use backbones::Features;
use base::{ImagesU8, Skipped};

use crate::Result;
use crate::batch::{BatchFeatures, EvalBatch, Item};
use crate::gallery::Candidates;
use crate::image_set::{OneSize, Read, stack};
use crate::measured::{BatchFacts, MeasuredBatch};
use crate::networks::{Networks, Role};
use crate::source::{ImageSource, Input, Side};
use crate::state::{Accumulators, RunState};

/// Images that belong together: one of each input.
pub type Row = Vec<std::result::Result<Read, Skipped>>;

/// Measures batches of a source.
pub struct Measurement<'a> {
    /// Feature networks.
    pub networks: &'a Networks,
    /// The source.
    pub source: &'a dyn ImageSource,
    /// Its inputs.
    pub inputs: &'a [Input],
    /// The run, for what its sums read.
    pub state: &'a RunState,
    /// The size that all images have, at the process that knows the first image.
    pub one_size: Option<&'a mut OneSize>,
    /// Images of which thumbnails are made.
    pub candidates: &'a mut Candidates,
}

impl Measurement<'_> {
    /// Measures a batch: the images with these numbers, and what was read of each input.
    ///
    /// # Errors
    /// Returns an error if an image has another size than the first, or a model or network fails.
    pub fn batch(mut self, indices: &[u64], read: Vec<Row>) -> Result<MeasuredBatch> {
        let mut facts = BatchFacts { images: indices.len() as u64, ..BatchFacts::default() };
        let Some(batch) = self.make(indices, read, &mut facts)? else {
            return Ok(MeasuredBatch { facts, ..MeasuredBatch::default() });
        };
        let features = BatchFeatures {
            samples: self.extract(&batch, batch.samples.as_ref(), &self.state.samples)?,
            reference: self.extract(&batch, batch.reference.as_ref(), &self.state.reference)?,
        };
        let mut metrics = BTreeMap::new();
        for (metric, state) in &self.state.metrics {
            metrics.insert(metric.name().to_owned(), state.measure(&batch, &features)?);
        }
        facts.judged = batch.is_judged();
        facts.thumbs = self.candidates.thumbnails(&batch)?;
        facts.items = batch.items;
        let features = BatchFeatures {
            samples: read_by(features.samples, &self.state.samples),
            reference: read_by(features.reference, &self.state.reference),
        };
        Ok(MeasuredBatch { facts, features, metrics })
    }

    /// Makes a batch of what was read; `None` if no image of it could be read, or if they have
    /// several sizes.
    fn make(&mut self, indices: &[u64], read: Vec<Row>, facts: &mut BatchFacts) -> Result<Option<EvalBatch>> {
        if indices.is_empty() {
            return Ok(None);
        }
        let batch = if self.inputs.is_empty() {
            let item = |&index| Item { index, name: format!("{index:06}"), class: None, prompt: None };
            let batch = self.source.batch(indices.iter().map(item).collect(), vec![])?;
            if let Some(samples) = &batch.samples {
                let (_, _, height, width) = samples.tensor().size4()?;
                self.see("an image that the model makes", (width as u32, height as u32), facts)?;
            }
            batch
        } else {
            let (items, sides) = self.usable(indices, read, facts)?;
            if items.is_empty() || facts.sizes.len() > 1 {
                return Ok(None);
            }
            let images: Result<Vec<ImagesU8>> =
                sides.iter().map(|side| stack(side.iter().map(|r| &r.image))).collect();
            count(self.inputs, &sides, facts);
            self.source.batch(items, images?)?
        };
        // Images that have no files.
        if batch.is_judged() && self.inputs.iter().all(|input| input.side != Some(Side::Samples)) {
            facts.samples.images += batch.items.len() as u64;
        }
        Ok(Some(batch))
    }

    /// The images that could be read in every input, side by side.
    fn usable(
        &mut self,
        indices: &[u64],
        read: Vec<Row>,
        facts: &mut BatchFacts,
    ) -> Result<(Vec<Item>, Vec<Vec<Read>>)> {
        let mut sides: Vec<Vec<Read>> = read.iter().map(|_| vec![]).collect();
        let mut items = vec![];
        let mut rows: Vec<_> = read.into_iter().map(Vec::into_iter).collect();
        for &index in indices {
            let row: Row = rows.iter_mut().filter_map(Iterator::next).collect();
            let row = match row.into_iter().collect::<std::result::Result<Vec<Read>, Skipped>>() {
                Ok(row) => row,
                Err(skipped) => {
                    facts.skipped.push(skipped);
                    continue;
                }
            };
            // Images that only a model sees may have another size.
            for (image, _) in row.iter().zip(self.inputs).filter(|(_, input)| input.side.is_some()) {
                self.see(&image.name, image.image.dimensions(), facts)?;
            }
            let Read { name, class, prompt, .. } = &row[0];
            items.push(Item { index, name: name.clone(), class: *class, prompt: prompt.clone() });
            sides.iter_mut().zip(row).for_each(|(side, image)| side.push(image));
        }
        Ok((items, sides))
    }

    /// Checks an image's size where the first image is known, and keeps it for the process that
    /// knows it.
    fn see(&mut self, name: &str, size: (u32, u32), facts: &mut BatchFacts) -> Result<()> {
        if let Some(one_size) = &mut self.one_size {
            one_size.check(name, size)?;
        }
        if facts.sizes.len() < 2 && facts.sizes.iter().all(|(_, seen)| *seen != size) {
            facts.sizes.push((name.to_owned(), size));
        }
        Ok(())
    }

    /// Features of one side.
    fn extract(
        &self,
        batch: &EvalBatch,
        images: Option<&ImagesU8>,
        accumulators: &Accumulators,
    ) -> Result<BTreeMap<Role, Features>> {
        let Some(images) = images else { return Ok(BTreeMap::new()) };
        let extract = |&role| Ok((role, self.networks.extract(role, images, || batch.names())?));
        accumulators.keys().map(extract).collect()
    }
}

/// The features that sums read.
fn read_by(features: BTreeMap<Role, Features>, sums: &Accumulators) -> BTreeMap<Role, Features> {
    features
        .into_iter()
        .filter_map(|(role, features)| Some((role, sums.get(&role)?.reads(features))))
        .collect()
}

/// Counts the images that were read for the sides that they belong to.
fn count(inputs: &[Input], read: &[Vec<Read>], facts: &mut BatchFacts) {
    for (input, read) in inputs.iter().zip(read) {
        let side = match input.side {
            Some(Side::Samples) => &mut facts.samples,
            Some(Side::Reference) => &mut facts.reference,
            None => continue,
        };
        side.add(read);
    }
}
