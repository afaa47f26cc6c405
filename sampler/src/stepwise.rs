//! The plain decode loop: a prefill, then one step per further code.
//!
//! GigaTok and LlamaGen `generate.py`. Under guidance the batch is doubled, the conditional half
//! first; the same code is the input of both halves. No step waits for the host.
//!
//! B images, R rows of the network's batch, N codes per image, V vocabulary

use ar_model::{ArSpec, AutoregressiveModel, Conditioning};
use base::SampleStream;
use tch::{Device, Tensor};

use crate::batch::{apply_cfg, row_to_image};
use crate::config::SamplingConfig;
use crate::sample::{self, RandomInputs, RandomSource};

/// Codes (B, N) of the first `b` of R conditions (see [`crate::Sampler`]). `observe` receives each
/// step's number and guided logits (B, V).
pub(crate) fn decode<M: AutoregressiveModel>(
    model: &M,
    rows: &Conditioning,
    b: i64,
    cache: &mut M::Cache,
    config: &SamplingConfig,
    source: RandomSource,
    mut observe: impl FnMut(usize, &Tensor),
) -> Tensor {
    let &ArSpec { num_tokens, prefix_len, .. } = model.spec();
    let steps = num_tokens as usize;
    let mut logits = model.prefill(rows, cache); // (R, V)
    let random = BatchRandom::new(source, steps, logits.device());
    let image = row_to_image(rows.batch_size(), b, config.guidance.active()).to_device(logits.device()); // (R)
    let mut codes: Vec<Tensor> = Vec::with_capacity(steps); // each (B, 1)
    for step in 0..steps {
        if let Some(last) = codes.last() {
            let input = last.index_select(0, &image).clamp_min(0); // (R, 1); any code in place of NOT_FINITE
            logits = model.decode_step(&input, prefix_len + step as i64 - 1, cache);
        }
        let guided = apply_cfg(&logits, b, &config.guidance, step, steps); // (B, V)
        observe(step, &guided);
        codes.push(sample::sample(&guided, config, &random.step(step)));
    }
    Tensor::cat(&codes, 1)
}

/// Random numbers of a batch.
enum BatchRandom<'a> {
    Uniforms(Tensor), // (B, N)
    Gumbel(&'a [SampleStream]),
    Torch,
}

impl<'a> BatchRandom<'a> {
    fn new(source: RandomSource<'a>, steps: usize, device: Device) -> Self {
        match source {
            RandomSource::Streams(streams) => BatchRandom::Uniforms(sample::uniforms(streams, steps, device)),
            RandomSource::Gumbel(streams) => BatchRandom::Gumbel(streams),
            RandomSource::Torch => BatchRandom::Torch,
        }
    }

    /// Random numbers of code number `step`.
    fn step(&self, step: usize) -> RandomInputs {
        match self {
            BatchRandom::Uniforms(u) => RandomInputs::Uniforms(u.narrow(1, step as i64, 1)),
            BatchRandom::Gumbel(streams) => {
                RandomInputs::Gumbel(streams.iter().map(|s| s.codes(step as u64)).collect())
            }
            BatchRandom::Torch => RandomInputs::Torch,
        }
    }
}
