//! Continuous batching: images in the slots of one cache, each at its own step with its own settings.
//!
//! A slot holds an image's conditional row and, under guidance, its unconditional one: they enter,
//! step and leave together. A code is drawn from the same logits by the same functions as in
//! [`crate::Sampler`], so that on the CPU an image's codes are those it has alone, whichever images
//! are in the other slots.
//!
//! S slots, R rows of a pass, N codes of an image, T prefix length, V vocabulary

use ar_model::{ArSpec, CacheRow, Conditioning, RowwiseModel};
use base::SampleStream;
use tch::Tensor;

use crate::config::SamplingConfig;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::row_draw::{RowDraw, draw};
use crate::sample::NOT_FINITE;

/// An image to draw.
#[derive(Debug)]
pub struct SlotImage {
    /// Its condition, a batch of one.
    pub cond: Conditioning,
    /// Negative condition, a batch of one; `None`: the model's null condition.
    pub negative: Option<Conditioning>,
    /// Guidance, temperature and filters.
    pub config: SamplingConfig,
    /// Its random numbers.
    pub stream: SampleStream,
}

/// An image under way.
#[derive(Debug)]
struct Slot {
    config: SamplingConfig,
    stream: SampleStream,
    codes: Vec<i64>,
    rows: SlotRows,
}

/// Rows of the cache that a slot uses.
#[derive(Debug, Clone, Copy)]
struct SlotRows {
    conditional: i64,
    /// Under guidance.
    unconditional: Option<i64>,
}

impl SlotRows {
    fn of(slot: usize, guided: bool) -> Self {
        let conditional = 2 * slot as i64;
        SlotRows { conditional, unconditional: guided.then_some(conditional + 1) }
    }

    fn each(self) -> impl Iterator<Item = i64> {
        [Some(self.conditional), self.unconditional].into_iter().flatten()
    }
}

/// Number of a slot.
pub type SlotNumber = usize;

/// The slots, and the cache that they share.
pub struct Slots<'m, M: RowwiseModel> {
    model: &'m M,
    cache: M::Cache,
    slots: Vec<Option<Slot>>,
}

impl<'m, M: RowwiseModel> Slots<'m, M> {
    /// `count` empty slots. Their cache has two rows each.
    pub fn new(model: &'m M, count: usize) -> Self {
        let cache = tch::no_grad(|| model.new_cache(2 * count as i64));
        Slots { model, cache, slots: (0..count).map(|_| None).collect() }
    }

    /// Number of slots.
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// Number of empty slots.
    pub fn free(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_none()).count()
    }

    /// Rows that the images in slots have.
    pub fn rows(&self) -> usize {
        self.slots.iter().flatten().map(|slot| slot.rows.each().count()).sum()
    }

    /// Codes of an image so far.
    pub fn codes(&self, slot: SlotNumber) -> &[i64] {
        self.slots.get(slot).and_then(Option::as_ref).map_or(&[], |slot| &slot.codes)
    }

    /// Empties a slot, and returns its codes so far.
    pub fn remove(&mut self, slot: SlotNumber) -> Vec<i64> {
        self.slots.get_mut(slot).and_then(Option::take).map_or(vec![], |slot| slot.codes)
    }

    /// Checks an image, as [`Slots::admit`] requires.
    ///
    /// # Errors
    /// Returns an error if a setting is out of its range, or a condition is not one that the model
    /// takes.
    pub fn check(model: &M, image: &SlotImage) -> Result<()> {
        image.config.validate()?;
        model.check_conditioning(&image.cond)?;
        let null = image.config.guidance.active().then(|| unconditional(model, image));
        Ok(null.iter().try_for_each(|cond| model.check_conditioning(cond))?)
    }

    /// Runs the conditions of images in empty slots, and draws the first code of each. Returns the
    /// slot of each image, with an error where its logits are not finite; such an image is to be
    /// removed.
    ///
    /// # Errors
    /// Returns an error if there are not as many empty slots, or the conditions do not go together.
    pub fn admit(&mut self, images: Vec<SlotImage>) -> Result<Vec<(SlotNumber, Result<()>)>> {
        let empty = (0..self.slots.len()).filter(|&i| self.slots[i].is_none());
        let places: Vec<SlotNumber> = empty.take(images.len()).collect();
        if places.len() < images.len() {
            return Err(Error::NoFreeSlot { images: images.len(), free: places.len() });
        }
        if images.is_empty() {
            return Ok(vec![]);
        }
        let (mut conds, mut rows) = (vec![], vec![]);
        for (&place, image) in places.iter().zip(&images) {
            let guided = image.config.guidance.active();
            rows.extend(SlotRows::of(place, guided).each());
            conds.push(image.cond.select(&Tensor::from_slice(&[0i64])));
            conds.extend(guided.then(|| unconditional(self.model, image)));
        }
        let cond = Conditioning::cat(&conds.iter().collect::<Vec<_>>())?;
        let logits = tch::no_grad(|| self.model.prefill_rows(&cond, &rows, &mut self.cache)); // (R, V)
        for (&place, image) in places.iter().zip(images) {
            let SlotImage { config, stream, cond: _, negative: _ } = image;
            let rows = SlotRows::of(place, config.guidance.active());
            self.slots[place] = Some(Slot { config, stream, codes: vec![], rows });
        }
        Ok(self.draw(&logits, places))
    }

    /// Advances every image in a slot by one code, at its own position. Returns the slots of those
    /// that had codes left, with an error where logits are not finite; such an image is to be removed.
    pub fn step(&mut self) -> Vec<(SlotNumber, Result<()>)> {
        let ArSpec { num_tokens, .. } = *self.model.spec();
        let active = |slot: &Slot| (slot.codes.len() as i64) < num_tokens;
        let numbers = (0..self.slots.len()).filter(|&i| self.slots[i].as_ref().is_some_and(active));
        let numbers: Vec<SlotNumber> = numbers.collect();
        if numbers.is_empty() {
            return vec![];
        }
        let slots: Vec<&Slot> = numbers.iter().filter_map(|&i| self.slots[i].as_ref()).collect();
        let (mut rows, mut inputs) = (vec![], vec![]);
        for slot in slots {
            for at in self.places(slot) {
                rows.push(at);
                inputs.push(slot.codes.last().copied().unwrap_or_default());
            }
        }
        let logits = self.decode(&inputs, 1, &rows).squeeze_dim(1); // (R, V)
        self.draw(&logits, numbers)
    }

    /// All codes of an image: those drawn, and a guess of the rest. One pass over the remaining
    /// positions guesses each code as the most probable one after the codes before it, for which the
    /// last code is put in; as a speculative draft it is no sample. The image goes on as without it.
    pub fn draft(&mut self, slot: SlotNumber) -> Vec<i64> {
        let Some(image) = self.slots.get(slot).and_then(Option::as_ref) else { return vec![] };
        let (steps, known) = (self.model.spec().num_tokens as usize, image.codes.len());
        let mut codes = image.codes.clone();
        let Some(last) = codes.last().copied().filter(|_| known < steps) else { return codes };
        let (rows, left): (Vec<CacheRow>, usize) = (self.places(image).collect(), steps - known);
        let greedy = SamplingConfig { filters: vec![Filter::TopK(1)], ..image.config.clone() };
        let stream = image.stream;
        let logits = self.decode(&vec![last; rows.len() * left], left as i64, &rows); // (R, K, V)
        let logits = logits.transpose(0, 1).flatten(0, 1); // (K · R, V)
        let at = |step| RowDraw { config: &greedy, stream, step };
        let draws: Vec<RowDraw> = (known..steps).map(at).collect();
        codes.extend(draw(&logits, &draws, steps).into_iter().map(|code| code.max(0)));
        codes
    }

    /// Places of the next input in each row of a slot.
    fn places(&self, slot: &Slot) -> impl Iterator<Item = CacheRow> + use<M> {
        let position = self.model.spec().prefix_len + slot.codes.len() as i64 - 1;
        slot.rows.each().map(move |row| CacheRow { row, position })
    }

    /// Runs `k` codes in each row → (R, k, V).
    fn decode(&mut self, codes: &[i64], k: i64, rows: &[CacheRow]) -> Tensor {
        let codes = Tensor::from_slice(codes).view([rows.len() as i64, k]).to_device(self.model.device());
        tch::no_grad(|| self.model.decode_rows(&codes, rows, &mut self.cache))
    }

    /// Logits (R, V) of the rows of some slots → their next codes.
    fn draw(&mut self, logits: &Tensor, numbers: Vec<SlotNumber>) -> Vec<(SlotNumber, Result<()>)> {
        let steps = self.model.spec().num_tokens as usize;
        let slots: Vec<&Slot> = numbers.iter().filter_map(|&i| self.slots[i].as_ref()).collect();
        let draws: Vec<RowDraw> = slots
            .iter()
            .map(|slot| RowDraw { config: &slot.config, stream: slot.stream, step: slot.codes.len() })
            .collect();
        let codes = draw(logits, &draws, steps);
        let mut drawn = vec![];
        for (number, code) in numbers.into_iter().zip(codes) {
            let Some(slot) = &mut self.slots[number] else { continue };
            let step = slot.codes.len();
            let found = match code {
                NOT_FINITE => Err(Error::NotFinite { image: slot.stream.index, step }),
                code => {
                    slot.codes.push(code);
                    Ok(())
                }
            };
            drawn.push((number, found));
        }
        drawn
    }
}

/// The condition of an image's unconditional row, a batch of one.
fn unconditional<M: RowwiseModel>(model: &M, image: &SlotImage) -> Conditioning {
    match &image.negative {
        Some(negative) => negative.select(&Tensor::from_slice(&[0i64])),
        None => model.null_conditioning(&image.cond),
    }
}
