//! The work itself: images are read on other threads while networks look at those before.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use base::{Codes, Images, ImagesU8, Progress};
use data::Stored;
use eval::PixelPair;
use serde_json::Value as Json;
use tch::{Device, Kind, Tensor};

use super::images::{ImageSet, OneSize, Read, stack};
use super::live::{Generator, Reconstructor};
use super::networks::Networks;
use super::state::{Shard, Side, State, Tally};
use super::thumbs::{Thumb, encode};
use crate::commands::Context;
use crate::inputs::Skipped;
use crate::pictures::Picture;

/// What is done with the images of a phase.
pub enum Job<'a> {
    /// They are judged.
    Samples(ImageSet),
    /// They are compared with.
    Reference(ImageSet),
    /// They are judged, each against its original.
    Pairs(ImageSet, ImageSet),
    /// A tokenizer's rendering of them is judged against them; they also stand for the reference if `true`.
    Reconstruct(ImageSet, &'a Reconstructor, bool),
    /// A model makes them, and they are judged.
    Generate(&'a Generator),
}

/// A walk over images.
pub struct Phase<'a> {
    /// As it is called where progress is kept.
    pub name: &'static str,
    /// What is done.
    pub job: Job<'a>,
}

/// One batch on its way into the sums.
struct Step {
    items: Vec<Item>,
    samples: Option<ImagesU8>,
    reference: Option<ImagesU8>,
    pair: Option<Pair>,
    codes: Option<Codes>,
}

struct Item {
    index: u64,
    name: String,
    class: Option<i64>,
}

/// What is judged and its originals, for the pixel metrics and for LPIPS.
struct Pair {
    pixels: PixelPair,
    judged: Images,
    originals: Images,
}

/// Images that belong together: one of each set.
type Row = Vec<std::result::Result<Read, Skipped>>;

impl Phase<'_> {
    /// How many images.
    pub fn len(&self) -> u64 {
        match &self.job {
            Job::Samples(set) | Job::Reference(set) | Job::Pairs(set, _) | Job::Reconstruct(set, ..) => {
                set.len() as u64
            }
            Job::Generate(generator) => generator.len(),
        }
    }

    fn sets(&self) -> Vec<ImageSet> {
        match &self.job {
            Job::Samples(set) | Job::Reference(set) | Job::Reconstruct(set, ..) => vec![set.clone()],
            Job::Pairs(a, b) => vec![a.clone(), b.clone()],
            Job::Generate(_) => vec![],
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
}

impl Walk<'_> {
    /// Walks over all phases; false if a signal stopped it.
    pub fn run(&mut self, phases: &[Phase], state: &mut State, context: &Context) -> Result<bool> {
        let stop = crate::commands::stop_on_signal()?;
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
        let Shard { rank, world } = self.keeping.shard;
        let done = state.tally.done.get(phase.name).copied().unwrap_or(0);
        let all = (0..phase.len()).filter(|i| i % world == rank);
        let todo: Vec<u64> = all.skip(done as usize).collect();
        if done > 0 && !todo.is_empty() {
            context.printer.note(&format!("{}: continuing after {done}", phase.name));
        }
        let mut progress = context.printer.clone();
        progress.start(phase.name, Some(todo.len() as u64));
        let sets = phase.sets();
        let complete = std::thread::scope(|scope| -> Result<bool> {
            let (send, receive) = sync_channel(2);
            let (sets, todo, size) = (&sets, &todo, self.batch_size);
            scope.spawn(move || {
                for indices in todo.chunks(size) {
                    let read: Vec<Row> = sets.iter().map(|set| set.read(indices)).collect();
                    if send.send((indices.to_vec(), read)).is_err() {
                        return; // nobody listens any more
                    }
                }
            });
            self.take_all(phase, state, &receive, stop, &mut progress)
        })?;
        progress.finish();
        self.save(state)?;
        Ok(complete)
    }

    fn take_all(
        &mut self,
        phase: &Phase,
        state: &mut State,
        batches: &Receiver<(Vec<u64>, Vec<Row>)>,
        stop: &AtomicBool,
        progress: &mut impl Progress,
    ) -> Result<bool> {
        let mut saved = Instant::now();
        while let Ok((indices, read)) = batches.recv() {
            let n = indices.len() as u64;
            if let Some(step) = self.step(phase, indices, read, state)? {
                self.feed(step, state)?;
            }
            *state.tally.done.entry(phase.name.to_owned()).or_default() += n;
            progress.advance(n);
            if stop.load(Ordering::Relaxed) {
                return Ok(state.tally.done[phase.name] == self.share(phase.len()));
            }
            if saved.elapsed() > SAVE_EVERY {
                self.save(state)?;
                saved = Instant::now();
            }
        }
        Ok(true)
    }

    fn share(&self, images: u64) -> u64 {
        let Shard { rank, world } = self.keeping.shard;
        (0..images).filter(|i| i % world == rank).count() as u64
    }

    fn save(&self, state: &State) -> Result<()> {
        match self.keeping.file {
            Some(file) => state.save(file, self.keeping.run, self.keeping.shard),
            None => Ok(()),
        }
    }

    /// From pixels to what is scored; `None` where nothing of the batch could be read.
    fn step(
        &mut self,
        phase: &Phase,
        indices: Vec<u64>,
        read: Vec<Row>,
        state: &mut State,
    ) -> Result<Option<Step>> {
        if let Job::Generate(generator) = &phase.job {
            let (samples, classes) = generator.make(&indices)?;
            let items = indices.iter().zip(classes).map(|(&index, class)| Item {
                index,
                name: format!("{index:06}"),
                class: Some(class),
            });
            let (_, _, height, width) = samples.tensor().size4()?;
            self.one_size.check("an image that the model makes", (width as u32, height as u32))?;
            state.tally.samples.images += indices.len() as u64;
            return Ok(Some(Step { items: items.collect(), ..Step::of(Some(samples), None) }));
        }
        let (items, sides) = self.usable(indices, read, state)?;
        if items.is_empty() {
            return Ok(None);
        }
        let batches: Result<Vec<ImagesU8>> =
            sides.iter().map(|side| stack(side.iter().map(|r| &r.image))).collect();
        for (side, count) in sides.iter().zip(counted(phase, &mut state.tally)) {
            count_side(count, side);
        }
        let mut batches = batches?.into_iter();
        let mut next = || batches.next().ok_or_else(|| anyhow::anyhow!("internal error: a set is missing"));
        let step = match &phase.job {
            Job::Samples(_) => Step::of(Some(next()?), None),
            Job::Reference(_) => Step::of(None, Some(next()?)),
            Job::Pairs(..) => {
                let (samples, originals) = (next()?, next()?);
                let pair = Pair {
                    pixels: PixelPair::stored(&samples, &originals)?,
                    judged: samples.to_float(),
                    originals: originals.to_float(),
                };
                Step { pair: Some(pair), ..Step::of(Some(samples), Some(originals)) }
            }
            Job::Reconstruct(_, tokenizer, is_reference) => {
                if *is_reference {
                    state.tally.samples.images += items.len() as u64; // they have no files to be counted by
                }
                self.reconstruct(tokenizer, next()?, *is_reference)?
            }
            Job::Generate(_) => bail!("internal error: models read no files"),
        };
        Ok(Some(Step { items, ..step }))
    }

    fn reconstruct(
        &self,
        tokenizer: &Reconstructor,
        originals: ImagesU8,
        is_reference: bool,
    ) -> Result<Step> {
        let float = originals.to_float();
        let (decoded, codes) = tokenizer.run(&float)?;
        let samples = decoded.to_u8();
        let pixels = PixelPair::published(&samples, &float)?;
        // LPIPS sees the decoder's output as it is, neither clamped nor rounded.
        let pair = Pair { pixels, judged: decoded, originals: float };
        let reference = is_reference.then_some(originals);
        Ok(Step { pair: Some(pair), codes: Some(codes), ..Step::of(Some(samples), reference) })
    }

    /// The images of a batch that could be read in every set, side by side.
    fn usable(
        &mut self,
        indices: Vec<u64>,
        read: Vec<Row>,
        state: &mut State,
    ) -> Result<(Vec<Item>, Vec<Vec<Read>>)> {
        let mut sides: Vec<Vec<Read>> = read.iter().map(|_| vec![]).collect();
        let mut items = vec![];
        let mut rows: Vec<_> = read.into_iter().map(Vec::into_iter).collect();
        for index in indices {
            let row: Row = rows.iter_mut().filter_map(Iterator::next).collect();
            let row = match row.into_iter().collect::<std::result::Result<Vec<Read>, Skipped>>() {
                Ok(row) => row,
                Err(skipped) => {
                    state.tally.skipped.push(skipped);
                    continue;
                }
            };
            for image in &row {
                self.one_size.check(&image.name, image.image.dimensions())?;
            }
            let first = &row[0];
            items.push(Item { index, name: first.name.clone(), class: first.class });
            sides.iter_mut().zip(row).for_each(|(side, image)| side.push(image));
        }
        Ok((items, sides))
    }

    /// Into the sums.
    fn feed(&self, step: Step, state: &mut State) -> Result<()> {
        let indices: Vec<u64> = step.items.iter().map(|i| i.index).collect();
        for (images, collectors) in
            [(&step.samples, &mut state.samples), (&step.reference, &mut state.reference)]
        {
            let Some(images) = images else { continue };
            for (role, collector) in collectors {
                collector.update(&self.networks.features[role].extract(images)?, &indices)?;
            }
        }
        if let (Some(codes), Some(usage)) = (&step.codes, &mut state.tally.codebook) {
            usage.update(codes)?;
        }
        self.show(&step, state)?;
        self.compare(&step, state)
    }

    fn compare(&self, step: &Step, state: &mut State) -> Result<()> {
        let Some(pair) = &step.pair else { return Ok(()) };
        let tally = &mut state.tally;
        let scores = tally.pairs.update(&pair.pixels)?;
        let lpips = match &self.networks.lpips {
            Some((network, _)) => {
                let to = |x: &Images| Images::new(x.tensor().to_device(self.device));
                let distance = network.distance(&to(&pair.judged)?, &to(&pair.originals)?)?;
                Some(Vec::<f64>::try_from(distance.to_kind(Kind::Double).to_device(Device::Cpu))?)
            }
            None => None,
        };
        for (i, (score, item)) in scores.iter().zip(&step.items).enumerate() {
            let distance = lpips.as_ref().map(|l| l[i]);
            let values = [("psnr", Some(score.psnr)), ("ssim", Some(score.ssim)), ("lpips", distance)];
            for (name, value) in values {
                if let (Some(value), Some(histogram)) = (value, tally.spread.get_mut(name)) {
                    histogram.add(value);
                }
            }
            distance.into_iter().for_each(|d| tally.lpips.add(d));
            if let Some(class) = item.class {
                let mine = tally.classes.entry(class).or_default();
                if score.psnr.is_finite() {
                    mine.psnr.add(score.psnr);
                }
                mine.ssim.add(score.ssim);
                distance.into_iter().for_each(|d| mine.lpips.add(d));
            }
        }
        Ok(())
    }

    /// Keeps some images to look at, and counts those of each class.
    fn show(&self, step: &Step, state: &mut State) -> Result<()> {
        let Some(samples) = &step.samples else { return Ok(()) };
        let gallery = &mut state.tally.gallery;
        for (i, item) in step.items.iter().enumerate() {
            if let Some(class) = item.class {
                state.tally.classes.entry(class).or_default().images += 1;
            }
            if gallery.wants(item.class) {
                let one = |images: &Tensor| -> Result<String> {
                    let image = ImagesU8::new(images.narrow(0, i as i64, 1))?;
                    let picture = Picture::from_batch(&image)?.pop();
                    encode(picture.ok_or_else(|| anyhow::anyhow!("internal error: an empty batch"))?)
                };
                let original = step.pair.as_ref().map(|p| one(p.originals.to_u8().tensor())).transpose()?;
                let thumb = Thumb {
                    index: item.index,
                    name: item.name.clone(),
                    image: one(samples.tensor())?,
                    original,
                };
                gallery.keep(thumb, item.class);
            }
        }
        Ok(())
    }
}

impl Step {
    fn of(samples: Option<ImagesU8>, reference: Option<ImagesU8>) -> Self {
        Step { items: vec![], samples, reference, pair: None, codes: None }
    }
}

/// The sides whose images a phase counts, in the order of its sets.
fn counted<'t>(phase: &Phase, tally: &'t mut Tally) -> Vec<&'t mut Side> {
    match &phase.job {
        Job::Samples(_) | Job::Reconstruct(_, _, false) | Job::Generate(_) => vec![&mut tally.samples],
        Job::Reference(_) => vec![&mut tally.reference],
        Job::Pairs(..) => vec![&mut tally.samples, &mut tally.reference],
        Job::Reconstruct(_, _, true) => vec![&mut tally.reference],
    }
}

fn count_side(side: &mut Side, read: &[Read]) {
    for image in read {
        side.images += 1;
        side.digest.add(image.digest);
        let what = match image.stored {
            Stored::Rgb => continue,
            Stored::Grey => "grey, repeated on three channels",
            Stored::Transparent => "transparency, dropped",
            Stored::Deep => "more than 8 bits, rounded to 8",
            Stored::Cmyk => "CMYK, converted to RGB",
        };
        *side.converted.entry(what.to_owned()).or_default() += 1;
    }
}
