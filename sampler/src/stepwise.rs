//! The plain decode loop: a prefill, then one step per further code.
//!
//! GigaTok and LlamaGen `generate.py`. Under guidance the batch is doubled, the conditional half first; the
//! same code goes into both halves. Nothing in a step waits for the host.
//!
//! B images, R rows of the network's batch, N codes per image, V vocabulary

use ar_model::{ArSpec, AutoregressiveModel, Conditioning};
use base::SampleStream;
use tch::{Device, Tensor};

use crate::batch::{apply_cfg, row_to_image};
use crate::config::SamplingConfig;
use crate::sample::{self, RandomSource};

/// Codes (B, N) of the first `b` of R conditions (see [`crate::Sampler`]); `observe` sees each step's number
/// and guided logits (B, V).
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
    let random = RandomInputs::new(source, config, steps, logits.device());
    let image = row_to_image(rows.batch_size(), b, config.guidance.active()).to_device(logits.device()); // (R)
    let mut codes: Vec<Tensor> = Vec::with_capacity(steps); // each (B, 1)
    for step in 0..steps {
        if let Some(last) = codes.last() {
            let input = last.index_select(0, &image).clamp_min(0); // (R, 1); any code where there is none
            logits = model.decode_step(&input, prefix_len + step as i64 - 1, cache);
        }
        let guided = apply_cfg(&logits, b, &config.guidance, step, steps); // (B, V)
        observe(step, &guided);
        codes.push(random.sample(&guided, config, step));
    }
    Tensor::cat(&codes, 1)
}

/// The random numbers of a batch.
enum RandomInputs<'a> {
    Uniforms(Tensor), // (B, N)
    Gumbel(&'a [SampleStream]),
    Torch,
    /// None: the best code is taken.
    Greedy,
}

impl<'a> RandomInputs<'a> {
    fn new(source: RandomSource<'a>, config: &SamplingConfig, steps: usize, device: Device) -> Self {
        match source {
            RandomSource::Torch => RandomInputs::Torch,
            _ if config.is_greedy() => RandomInputs::Greedy,
            RandomSource::Streams(streams) => {
                RandomInputs::Uniforms(sample::uniforms(streams, steps, device))
            }
            RandomSource::Gumbel(streams) => RandomInputs::Gumbel(streams),
        }
    }

    /// (B, V) guided logits of code number `step` → (B, 1) codes, [`sample::NOT_FINITE`] among them.
    fn sample(&self, guided: &Tensor, config: &SamplingConfig, step: usize) -> Tensor {
        let filtered = || config.filtered(guided);
        match self {
            RandomInputs::Uniforms(u) => {
                let u = u.narrow(1, step as i64, 1);
                sample::inverse_cdf_on_cpu(guided, &u, config)
                    .unwrap_or_else(|| sample::marked(&sample::inverse_cdf_sample(&filtered(), &u), guided))
            }
            RandomInputs::Gumbel(streams) => {
                let places: Vec<_> = streams.iter().map(|s| s.codes(step as u64)).collect();
                sample::gumbel_max(guided, &places, config)
            }
            RandomInputs::Torch => sample::marked(&sample::multinomial(&filtered()), guided),
            RandomInputs::Greedy => sample::marked(&sample::greedy(guided), guided),
        }
    }
}
