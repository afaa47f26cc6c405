//! The loop: a prefill, then one step per further code.
//!
//! GigaTok and LlamaGen `generate.py`. Under guidance the batch is doubled, the conditional half first; the same
//! code goes into both halves. Nothing in a step waits for the host.
//!
//! B images, R rows of the network's batch, N codes per image, V vocabulary

use ar_model::{ArSpec, AutoregressiveModel, Conditioning};
use base::{Codes, SampleStream};
use tch::{Device, Kind, Tensor};

use crate::choose::{self, Draw};
use crate::recorded::Recording;
use crate::{Error, Result, SamplingConfig, filter};

/// Draws codes from a model. Keeps the KV cache from one batch to the next of the same size.
pub struct Sampler<'m, M: AutoregressiveModel> {
    pub(crate) model: &'m M,
    kept: Option<Kept<M::Cache>>,
    negative: Option<Conditioning>,
}

/// What one batch leaves to the next of the same number of rows.
pub(crate) struct Kept<C> {
    rows: i64,
    pub cache: C,
    /// A recorded step that uses this cache.
    pub recording: Option<Recording>,
}

impl<'m, M: AutoregressiveModel> Sampler<'m, M> {
    /// A sampler without a cache yet.
    pub fn new(model: &'m M) -> Self {
        Sampler { model, kept: None, negative: None }
    }

    /// Guides away from this condition, a batch of one, instead of from the model's null condition; `None` takes that
    /// back. Unlike the null condition of a text, which keeps the mask of its caption, it comes with its own mask.
    pub fn set_negative(&mut self, negative: Option<Conditioning>) {
        self.negative = negative;
    }

    /// One sequence of N codes for each of the B conditions.
    pub fn generate(&mut self, cond: &Conditioning, config: &SamplingConfig, draw: Draw) -> Result<Codes> {
        self.generate_observed(cond, config, draw, |_, _| ())
    }

    /// The codes, and the guided logits of the first `steps` steps before temperature and filters, (B, steps, V).
    pub fn generate_with_logits(
        &mut self,
        cond: &Conditioning,
        config: &SamplingConfig,
        draw: Draw,
        steps: usize,
    ) -> Result<(Codes, Tensor)> {
        let mut kept = vec![];
        let codes = self.generate_observed(cond, config, draw, |step, logits| {
            if step < steps {
                kept.push(logits.copy());
            }
        })?;
        Ok((codes, Tensor::stack(&kept, 1)))
    }

    /// As [`Sampler::generate`]; `observe` sees each step's number and guided logits (B, V).
    pub fn generate_observed(
        &mut self,
        cond: &Conditioning,
        config: &SamplingConfig,
        draw: Draw,
        observe: impl FnMut(usize, &Tensor),
    ) -> Result<Codes> {
        config.validate()?;
        let b = cond.batch_size();
        check_batch(b, &draw)?;
        self.check(cond)?;
        let rows = self.rows(cond, config.guidance.active())?;
        let model = self.model;
        let codes = self.with_cache(rows.batch_size(), |kept| {
            tch::no_grad(|| run(model, &rows, b, &mut kept.cache, config, draw, observe))
        });
        choose::check(&codes, |i| draw.image(i))?;
        Ok(Codes::new(codes)?)
    }

    /// Calls `f` with a cache for `rows` rows: the last one, if it had as many.
    pub(crate) fn with_cache<R>(&mut self, rows: i64, f: impl FnOnce(&mut Kept<M::Cache>) -> R) -> R {
        let mut kept = match self.kept.take() {
            Some(kept) if kept.rows == rows => kept,
            _ => Kept { rows, cache: self.model.new_cache(rows), recording: None },
        };
        let _alone = self.model.has_own_threads().then(OneThread::new);
        let result = f(&mut kept);
        self.kept = Some(kept);
        result
    }

    /// Refuses conditions that the model does not take.
    pub(crate) fn check(&self, cond: &Conditioning) -> Result<()> {
        [Some(cond), self.negative.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|cond| Ok(self.model.check_conditioning(cond)?))
    }

    /// The conditions, and under guidance after them what it leads away from.
    pub(crate) fn with_null(&self, cond: &Conditioning, guided: bool) -> Result<Conditioning> {
        let null = guided.then(|| match &self.negative {
            Some(negative) => repeat_first(negative, cond.batch_size()),
            None => self.model.null_conditioning(cond),
        });
        null.iter().try_for_each(|null| self.model.check_conditioning(null))?;
        let parts: Vec<&Conditioning> = [Some(cond), null.as_ref()].into_iter().flatten().collect();
        Ok(Conditioning::cat(&parts)?)
    }

    /// What goes through the network: the conditions, under guidance the null conditions, and copies of the first
    /// condition up to a multiple of the network's tile, so that image i is the same at any batch size.
    pub(crate) fn rows(&self, cond: &Conditioning, guided: bool) -> Result<Conditioning> {
        let used = self.with_null(cond, guided)?;
        match (-used.batch_size()).rem_euclid(self.model.batch_multiple()) {
            0 => Ok(used),
            missing => Ok(Conditioning::cat(&[&used, &repeat_first(cond, missing)])?),
        }
    }
}

/// While it lives, libtorch's operations stay on the caller's thread: after each that they share, libtorch's other threads
/// look for more work for a millisecond, on processors that the network's own threads need.
struct OneThread {
    before: i32,
}

impl OneThread {
    fn new() -> Self {
        let before = tch::get_num_threads();
        tch::set_num_threads(1);
        OneThread { before }
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        tch::set_num_threads(self.before);
    }
}

/// `n` copies of the first condition.
fn repeat_first(cond: &Conditioning, n: i64) -> Conditioning {
    cond.select(&Tensor::zeros([n], (Kind::Int64, Device::Cpu)))
}

pub(crate) fn check_batch(b: i64, draw: &Draw) -> Result<()> {
    match draw {
        _ if b == 0 => Err(Error::NoConditions),
        Draw::Streams(s) | Draw::Gumbel(s) if s.len() as i64 != b => {
            Err(Error::Streams { conditions: b, streams: s.len() })
        }
        _ => Ok(()),
    }
}

/// `rows` are R conditions, the first `b` of them asked for (see [`Sampler::rows`]). → (B, N)
fn run<M: AutoregressiveModel>(
    model: &M,
    rows: &Conditioning,
    b: i64,
    cache: &mut M::Cache,
    config: &SamplingConfig,
    draw: Draw,
    mut observe: impl FnMut(usize, &Tensor),
) -> Tensor {
    let &ArSpec { num_tokens, prefix_len, .. } = model.spec();
    let steps = num_tokens as usize;
    let mut logits = model.prefill(rows, cache); // (R, V)
    let numbers = Numbers::new(draw, config, steps, logits.device());
    let image = image_of_row(rows.batch_size(), b, config.guidance.active()).to_device(logits.device()); // (R)
    let mut codes: Vec<Tensor> = Vec::with_capacity(steps); // each (B, 1)
    for step in 0..steps {
        if let Some(last) = codes.last() {
            let input = last.index_select(0, &image).clamp_min(0); // (R, 1); any code where there is none
            logits = model.decode_step(&input, prefix_len + step as i64 - 1, cache);
        }
        let guided = guide_step(&logits, b, config, step, steps); // (B, V)
        observe(step, &guided);
        codes.push(numbers.choose(&guided, config, step));
    }
    Tensor::cat(&codes, 1)
}

/// Which image's codes go into each of the R rows: both halves get the same, the padding gets the first.
pub(crate) fn image_of_row(rows: i64, b: i64, guided: bool) -> Tensor {
    let used = if guided { 2 * b } else { b };
    let images: Vec<i64> = (0..rows).map(|row| if row < used { row % b } else { 0 }).collect();
    Tensor::from_slice(&images)
}

/// Logits of all rows, (R, V) → guided logits of the images, (B, V): `uncond + (cond - uncond) · c` where the scale c of
/// the step is above 1, else the conditional logits as they are.
pub(crate) fn guide_step(
    logits: &Tensor,
    b: i64,
    config: &SamplingConfig,
    step: usize,
    steps: usize,
) -> Tensor {
    let scale = config.guidance.at(step, steps);
    match config.guidance.active() && scale > 1.0 {
        // A number on the host enters the kernel as its argument, on a GPU too.
        true => mixed(logits, b, &Tensor::from(scale as f32)),
        false => logits.narrow(0, 0, b),
    }
}

/// [`guide_step`] with the scale in a tensor (1), which need not be known here.
pub(crate) fn guide_by(logits: &Tensor, b: i64, scale: &Tensor) -> Tensor {
    mixed(logits, b, scale).where_self(&scale.gt(1.0), &logits.narrow(0, 0, b))
}

fn mixed(logits: &Tensor, b: i64, scale: &Tensor) -> Tensor {
    let (cond, uncond) = (logits.narrow(0, 0, b), logits.narrow(0, b, b));
    (cond - &uncond).g_mul_(scale).g_add_(&uncond)
}

/// The random numbers of a batch.
enum Numbers<'a> {
    Uniforms(Tensor), // (B, N)
    Gumbel(&'a [SampleStream]),
    Torch,
    /// The best code is taken.
    Unneeded,
}

impl<'a> Numbers<'a> {
    fn new(draw: Draw<'a>, config: &SamplingConfig, steps: usize, device: Device) -> Self {
        match draw {
            Draw::Torch => Numbers::Torch,
            _ if config.takes_the_best() => Numbers::Unneeded,
            Draw::Streams(streams) => Numbers::Uniforms(choose::uniforms(streams, steps, device)),
            Draw::Gumbel(streams) => Numbers::Gumbel(streams),
        }
    }

    /// (B, V) guided logits of code number `step` → (B, 1) codes, [`choose::NOT_FINITE`] among them.
    fn choose(&self, guided: &Tensor, config: &SamplingConfig, step: usize) -> Tensor {
        let filtered = || filter::apply(guided, config);
        match self {
            Numbers::Uniforms(u) => {
                let u = u.narrow(1, step as i64, 1);
                choose::invert_on_cpu(guided, &u, config)
                    .unwrap_or_else(|| choose::marked(&choose::invert(&filtered(), &u), guided))
            }
            Numbers::Gumbel(streams) => {
                let places: Vec<_> = streams.iter().map(|s| s.codes(step as u64)).collect();
                choose::gumbel_max(guided, &places, config)
            }
            Numbers::Torch => choose::marked(&choose::multinomial(&filtered()), guided),
            Numbers::Unneeded => choose::marked(&choose::greedy(guided), guided),
        }
    }
}
