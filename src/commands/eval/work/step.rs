//! From what was read to what is scored.

use anyhow::{Result, bail};
use base::{Codes, Images, ImagesU8};
use data::Stored;
use eval::PixelPair;
use tch::Tensor;

use super::{Job, Originals, Phase, Reconstruction, Row, Walk};
use crate::commands::eval::images::{Read, stack};
use crate::commands::eval::live::Generator;
use crate::commands::eval::predict::Predictor;
use crate::commands::eval::state::State;
use crate::commands::eval::tally::{Side, Tally};
use crate::failure::Failure;
use crate::finite;
use crate::inputs::Skipped;

/// One batch on its way into the sums.
#[derive(Default)]
pub(super) struct Step {
    pub items: Vec<Item>,
    pub samples: Option<ImagesU8>,
    pub reference: Option<ImagesU8>,
    pub pair: Option<Pair>,
    pub codes: Option<Codes>,
    /// Of each item's codes, (B).
    pub nats: Option<Tensor>,
    /// Codes of an item.
    pub num_tokens: u64,
}

pub(super) struct Item {
    pub index: u64,
    pub name: String,
    pub class: Option<i64>,
    pub prompt: Option<String>,
}

/// What is judged and its originals, for the pixel metrics and for LPIPS.
pub(super) struct Pair {
    pub pixels: PixelPair,
    pub judged: Images,
    pub originals: Images,
}

impl Step {
    /// The images' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(|item| item.name.as_str())
    }

    fn of(samples: Option<ImagesU8>, reference: Option<ImagesU8>) -> Self {
        Step { samples, reference, ..Step::default() }
    }
}

impl Walk<'_> {
    /// From pixels to what is scored; `None` where nothing of the batch could be read.
    pub(super) fn step(
        &mut self,
        phase: &Phase,
        indices: Vec<u64>,
        read: Vec<Row>,
        state: &mut State,
    ) -> Result<Option<Step>> {
        match &phase.job {
            Job::Generate(generator) => return Ok(Some(self.generate(generator, &indices, state)?)),
            Job::Predict(predictor) if predictor.images().is_none() => {
                return Ok(Some(predict_stored(predictor, &indices, state)?));
            }
            _ => {}
        }
        let (items, sides) = self.usable(phase, indices, read, state)?;
        if items.is_empty() {
            return Ok(None);
        }
        let batches: Result<Vec<ImagesU8>> =
            sides.iter().map(|side| stack(side.iter().map(|r| &r.image))).collect();
        count(phase, &sides, &mut state.tally);
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
            Job::Reconstruct(r) => {
                let step = reconstruct(r, next()?, &items)?;
                match r.reference {
                    Originals::Cropped(_) => Step { reference: Some(next()?), ..step },
                    Originals::AsGiven | Originals::Elsewhere => step,
                }
            }
            Job::Predict(predictor) => predict(predictor, &items, &next()?)?,
            Job::Generate(_) => bail!("internal error: models read no files"),
        };
        Ok(Some(Step { items, ..step }))
    }

    fn generate(&mut self, generator: &Generator, indices: &[u64], state: &mut State) -> Result<Step> {
        let (samples, classes) = generator.make(indices)?;
        let item =
            |(&index, class)| Item { index, name: format!("{index:06}"), class: Some(class), prompt: None };
        let items = indices.iter().zip(classes).map(item).collect();
        let (_, _, height, width) = samples.tensor().size4()?;
        self.one_size.check("an image that the model makes", (width as u32, height as u32))?;
        state.tally.samples.images += indices.len() as u64;
        Ok(Step { items, ..Step::of(Some(samples), None) })
    }

    /// The images of a batch that could be read in every set, side by side.
    fn usable(
        &mut self,
        phase: &Phase,
        indices: Vec<u64>,
        read: Vec<Row>,
        state: &mut State,
    ) -> Result<(Vec<Item>, Vec<Vec<Read>>)> {
        // What a tokenizer is given has another size than what is scored.
        let scored = match &phase.job {
            Job::Reconstruct(Reconstruction { reference: Originals::Cropped(_), .. }) => 1,
            _ => 0,
        };
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
            for image in &row[scored..] {
                self.one_size.check(&image.name, image.image.dimensions())?;
            }
            let Read { name, class, prompt, .. } = &row[0];
            items.push(Item { index, name: name.clone(), class: *class, prompt: prompt.clone() });
            sides.iter_mut().zip(row).for_each(|(side, image)| side.push(image));
        }
        Ok((items, sides))
    }
}

/// A tokenizer's error about an image of a batch calls it by its name.
fn named(error: anyhow::Error, items: &[Item]) -> anyhow::Error {
    match error.downcast::<tokenizer::Error>() {
        Ok(e) => e.of_images(|i| format!("`{}`", items[i].name)).into(),
        Err(e) => e,
    }
}

fn reconstruct(r: &Reconstruction, given: ImagesU8, items: &[Item]) -> Result<Step> {
    let mut originals = given.to_float();
    let (mut decoded, codes) = r.tokenizer.run(&originals).map_err(|e| named(e, items))?;
    if let Some(side) = r.side {
        // As LlamaGen's script: both in floating point, and neither clamped first.
        decoded = sampler::resize(decoded, i64::from(side))?;
        originals = sampler::resize(originals, i64::from(side))?;
    }
    let samples = decoded.to_u8();
    let pixels = PixelPair::published(&samples, &originals)?;
    // LPIPS sees the decoder's output as it is, neither clamped nor rounded.
    let pair = Pair { pixels, judged: decoded, originals };
    let reference = matches!(r.reference, Originals::AsGiven).then_some(given);
    Ok(Step { pair: Some(pair), codes: Some(codes), ..Step::of(Some(samples), reference) })
}

fn predict(predictor: &Predictor, items: &[Item], images: &ImagesU8) -> Result<Step> {
    let class = |item: &Item| {
        let message = format!("`{}` has no class, and the model predicts codes of a class", item.name);
        item.class.ok_or_else(|| Failure::new(message))
    };
    let classes = items.iter().map(class).collect::<std::result::Result<Vec<i64>, Failure>>()?;
    let (nats, num_tokens) = predictor.of_images(images, &classes).map_err(|e| named(e, items))?;
    let names = items.iter().map(|item| item.name.as_str());
    finite::check(&nats, names, "the likelihood of its codes", &predictor.name())?;
    Ok(Step { nats: Some(nats), num_tokens, ..Step::default() })
}

fn predict_stored(predictor: &Predictor, indices: &[u64], state: &mut State) -> Result<Step> {
    let (nats, num_tokens, classes) = predictor.of_stored(indices)?;
    let item =
        |(&index, class)| Item { index, name: format!("{index:06}"), class: Some(class), prompt: None };
    state.tally.samples.images += indices.len() as u64;
    let items: Vec<Item> = indices.iter().zip(classes).map(item).collect();
    let names = items.iter().map(|item| item.name.as_str());
    finite::check(&nats, names, "the likelihood of its codes", &predictor.name())?;
    Ok(Step { items, nats: Some(nats), num_tokens, ..Step::default() })
}

/// Counts what was read, for the sides that it stands for.
fn count(phase: &Phase, sides: &[Vec<Read>], tally: &mut Tally) {
    let Tally { samples, reference, .. } = tally;
    match (&phase.job, sides) {
        (Job::Samples(_) | Job::Predict(_), [read]) => count_side(samples, read),
        (Job::Reference(_), [read]) => count_side(reference, read),
        (Job::Pairs(..), [mine, originals]) => {
            count_side(samples, mine);
            count_side(reference, originals);
        }
        (Job::Reconstruct(Reconstruction { reference: Originals::Elsewhere, .. }), [given]) => {
            count_side(samples, given);
        }
        (Job::Reconstruct(_), [.., originals]) => {
            samples.images += originals.len() as u64; // what is judged has no files
            count_side(reference, originals);
        }
        _ => {}
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
