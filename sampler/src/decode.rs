//! The loop: a prefill, then one step per further code.
//!
//! GigaTok and LlamaGen `generate.py`. Under guidance the batch is doubled, the conditional half first; the same
//! code goes into both halves. Nothing in a step waits for the host.
//!
//! B images, N codes per image, V vocabulary

use ar_model::{ArSpec, AutoregressiveModel, Conditioning};
use base::Codes;
use tch::Tensor;

use crate::choose::{self, Draw};
use crate::{Error, Result, SamplingConfig, filter};

/// Draws codes from a model. Keeps the KV cache from one batch to the next of the same size.
pub struct Sampler<'m, M: AutoregressiveModel> {
    model: &'m M,
    cache: Option<(i64, M::Cache)>,
}

impl<'m, M: AutoregressiveModel> Sampler<'m, M> {
    /// A sampler without a cache yet.
    pub fn new(model: &'m M) -> Self {
        Sampler { model, cache: None }
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
        self.model.check_conditioning(cond)?;
        let doubled = match config.guidance.active() {
            true => Some(Conditioning::cat(&[cond, &self.model.null_conditioning(cond)])?),
            false => None,
        };
        let rows = if doubled.is_some() { 2 * b } else { b };
        let cond = doubled.as_ref().unwrap_or(cond);
        let mut cache = match self.cache.take() {
            Some((n, cache)) if n == rows => cache,
            _ => self.model.new_cache(rows),
        };
        let codes = tch::no_grad(|| run(self.model, cond, &mut cache, config, draw, observe));
        self.cache = Some((rows, cache));
        Ok(Codes::new(codes)?)
    }
}

fn check_batch(b: i64, draw: &Draw) -> Result<()> {
    match draw {
        _ if b == 0 => Err(Error::NoConditions),
        Draw::Streams(s) if s.len() as i64 != b => Err(Error::Streams { conditions: b, streams: s.len() }),
        _ => Ok(()),
    }
}

/// `cond` is doubled already where guidance is active. → (B, N)
fn run<M: AutoregressiveModel>(
    model: &M,
    cond: &Conditioning,
    cache: &mut M::Cache,
    config: &SamplingConfig,
    draw: Draw,
    mut observe: impl FnMut(usize, &Tensor),
) -> Tensor {
    let &ArSpec { num_tokens, prefix_len, .. } = model.spec();
    let steps = num_tokens as usize;
    let mut logits = model.prefill(cond, cache); // (B or 2B, V)
    let uniforms = match draw {
        Draw::Streams(streams) => Some(choose::uniforms(streams, steps, logits.device())), // (B, N)
        Draw::Torch => None,
    };
    let mut codes: Vec<Tensor> = Vec::with_capacity(steps); // each (B, 1)
    for step in 0..steps {
        if let Some(last) = codes.last() {
            let input = if config.guidance.active() { last.repeat([2, 1]) } else { last.shallow_clone() };
            logits = model.decode_step(&input, prefix_len + step as i64 - 1, cache);
        }
        let guided = guide(&logits, config, step, steps); // (B, V)
        observe(step, &guided);
        codes.push(choose_codes(&guided, config, uniforms.as_ref().map(|u| u.narrow(1, step as i64, 1))));
    }
    Tensor::cat(&codes, 1)
}

/// Mixes the halves of a doubled batch, (2B, V) → (B, V): `uncond + (cond - uncond) · c` where c > 1, else the
/// conditional half. Without guidance, the logits as they are.
fn guide(logits: &Tensor, config: &SamplingConfig, step: usize, steps: usize) -> Tensor {
    if !config.guidance.active() {
        return logits.shallow_clone();
    }
    let b = logits.size()[0] / 2;
    let cond = logits.narrow(0, 0, b);
    let scale = config.guidance.at(step, steps);
    if scale > 1.0 {
        let uncond = logits.narrow(0, b, b);
        &uncond + (&cond - &uncond) * scale
    } else {
        cond
    }
}

/// (B, V) guided logits and (B, 1) uniforms → (B, 1) codes.
fn choose_codes(guided: &Tensor, config: &SamplingConfig, uniforms: Option<Tensor>) -> Tensor {
    match uniforms {
        Some(_) if config.top_k == Some(1) => choose::greedy(guided),
        Some(u) => choose::invert(&filter::apply(guided, config), &u),
        None => choose::multinomial(&filter::apply(guided, config)),
    }
}
