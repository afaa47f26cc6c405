//! The entry to decoding: conditions → codes, in any [`DecodeMode`].
//!
//! B images, R rows of the network's batch, N codes per image, V vocabulary

use ar_model::{AutoregressiveModel, Conditioning};
use base::Codes;
use tch::Tensor;

use crate::batch::repeat_first;
use crate::config::SamplingConfig;
use crate::cuda_graph::CapturedStep;
use crate::error::{Error, Result};
use crate::sample::{self, RandomSource};
use crate::speculative::JacobiDecoder;
use crate::stepwise;

/// Execution mode of the decode loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecodeMode {
    /// One code per pass.
    #[default]
    Stepwise,
    /// One code per pass, by a CUDA graph of the step, which is kept for batches of the same size
    /// and settings. Takes [`RandomSource::Streams`] only, since the host generates the other
    /// random numbers at every step. Sums over the cache have other lengths than stepwise, so a
    /// code may differ if its random number is on the edge between two. On the CPU, which has no
    /// graphs, the same operations run one by one.
    CudaGraph,
    /// Up to `window` codes per pass, at least 1; see [`crate::speculative`]. Takes
    /// [`RandomSource::Gumbel`] only. Images are decoded one by one, since the number of accepted
    /// codes differs.
    Speculative {
        /// Maximum number of codes per pass.
        window: usize,
    },
}

/// Codes of a batch, and number of forward passes.
#[derive(Debug)]
pub struct Generation {
    /// (B, N).
    pub codes: Codes,
    /// Forward passes of the network, including prefills.
    pub passes: usize,
}

/// Samples codes from a model. Reuses the KV cache for batches of the same size.
pub struct Sampler<'m, M: AutoregressiveModel> {
    model: &'m M,
    state: Option<DecodeState<M::Cache>>,
    negative: Option<Conditioning>,
}

/// State reused by the next batch with the same row count.
struct DecodeState<C> {
    rows: i64,
    cache: C,
    /// Captured step that uses this cache.
    captured: Option<CapturedStep>,
}

impl<'m, M: AutoregressiveModel> Sampler<'m, M> {
    /// A sampler without a cache.
    pub fn new(model: &'m M) -> Self {
        Sampler { model, state: None, negative: None }
    }

    /// Sets the negative condition, a batch of one, which guidance steers away from instead of the
    /// model's null condition; `None` restores the latter. Unlike the null condition of a text,
    /// which has the mask of the caption, it has its own mask.
    pub fn set_negative(&mut self, negative: Option<Conditioning>) {
        self.negative = negative;
    }

    /// Samples one sequence of N codes for each of the B conditions.
    ///
    /// # Errors
    /// Returns an error if a setting is out of its range, the conditions do not match the model,
    /// the mode does not support this source of random numbers, the model's backend does not
    /// support the mode, or logits are not finite.
    pub fn generate(
        &mut self,
        cond: &Conditioning,
        config: &SamplingConfig,
        source: RandomSource,
        mode: DecodeMode,
    ) -> Result<Generation> {
        match mode {
            DecodeMode::Stepwise => self.stepwise(cond, config, source, |_, _| ()),
            DecodeMode::CudaGraph => self.by_cuda_graph(cond, config, source),
            DecodeMode::Speculative { window } => self.speculatively(cond, config, source, window),
        }
    }

    /// Samples codes stepwise; also returns the guided logits of the first `steps` steps before
    /// temperature and filters, (B, steps, V).
    ///
    /// # Errors
    /// See [`Sampler::generate`].
    pub fn generate_with_logits(
        &mut self,
        cond: &Conditioning,
        config: &SamplingConfig,
        source: RandomSource,
        steps: usize,
    ) -> Result<(Codes, Tensor)> {
        let mut kept = vec![];
        let generation = self.stepwise(cond, config, source, |step, logits| {
            if step < steps {
                kept.push(logits.copy());
            }
        })?;
        Ok((generation.codes, Tensor::stack(&kept, 1)))
    }

    fn stepwise(
        &mut self,
        cond: &Conditioning,
        config: &SamplingConfig,
        source: RandomSource,
        observe: impl FnMut(usize, &Tensor),
    ) -> Result<Generation> {
        self.check(cond, config, &source)?;
        let rows = self.rows(cond, config.guidance.active())?;
        let (model, b) = (self.model, cond.batch_size());
        let codes = self.with_state(rows.batch_size(), |state| {
            tch::no_grad(|| stepwise::decode(model, &rows, b, &mut state.cache, config, source, observe))
        });
        self.generation(codes, source)
    }

    fn by_cuda_graph(
        &mut self,
        cond: &Conditioning,
        config: &SamplingConfig,
        source: RandomSource,
    ) -> Result<Generation> {
        self.check(cond, config, &source)?;
        let RandomSource::Streams(streams) = source else { return Err(Error::NeedsStreams) };
        let step = self.model.capturable().ok_or(Error::NotCapturable)?;
        let rows = self.rows(cond, config.guidance.active())?;
        let (model, sizes) = (self.model, [cond.batch_size(), rows.batch_size()]);
        let codes = self.with_state(rows.batch_size(), |state| {
            let _guard = tch::no_grad_guard();
            let logits = model.prefill(&rows, &mut state.cache); // (R, V)
            let kept = state.captured.take().filter(|kept| kept.serves(sizes[0], config));
            let new = || CapturedStep::new(model.spec(), step.launcher(), sizes, config, logits.device());
            let mut captured = kept.unwrap_or_else(new);
            let codes = captured.decode(step, &logits, streams, &mut state.cache)?;
            state.captured = Some(captured);
            Ok::<_, Error>(codes)
        })?;
        self.generation(codes, source)
    }

    fn speculatively(
        &mut self,
        cond: &Conditioning,
        config: &SamplingConfig,
        source: RandomSource,
        window: usize,
    ) -> Result<Generation> {
        self.check(cond, config, &source)?;
        let RandomSource::Gumbel(streams) = source else { return Err(Error::NeedsGumbel) };
        if window == 0 {
            return Err(Error::Setting { what: "the window", found: 0.0, expected: "1 or more" });
        }
        let model = self.model;
        let (mut codes, mut passes) = (vec![], 0);
        for (i, &stream) in streams.iter().enumerate() {
            let one = cond.select(&Tensor::from_slice(&[i as i64]));
            let rows = self.with_uncond(&one, config.guidance.active())?;
            let decoder = JacobiDecoder::new(model, config, stream);
            let image = self.with_state(rows.batch_size(), |state| {
                tch::no_grad(|| decoder.decode(&rows, window, &mut state.cache))
            })?;
            codes.extend(image.codes);
            passes += image.passes;
        }
        let shape = [streams.len() as i64, model.spec().num_tokens];
        Ok(Generation { codes: Codes::new(Tensor::from_slice(&codes).view(shape))?, passes })
    }

    /// Checked codes of a pass for every code.
    fn generation(&self, codes: Tensor, source: RandomSource) -> Result<Generation> {
        sample::check(&codes, |i| source.image(i))?;
        Ok(Generation { codes: Codes::new(codes)?, passes: self.model.spec().num_tokens as usize })
    }

    /// Calls `f` with the state for `rows` rows: that of the last batch, if it had as many.
    fn with_state<R>(&mut self, rows: i64, f: impl FnOnce(&mut DecodeState<M::Cache>) -> R) -> R {
        let mut state = match self.state.take() {
            Some(state) if state.rows == rows => state,
            _ => DecodeState { rows, cache: self.model.new_cache(rows), captured: None },
        };
        let _alone = self.model.has_own_threads().then(OneThread::new);
        let result = f(&mut state);
        self.state = Some(state);
        result
    }

    /// Checks settings, random streams and conditions.
    fn check(&self, cond: &Conditioning, config: &SamplingConfig, source: &RandomSource) -> Result<()> {
        config.validate()?;
        check_batch(cond.batch_size(), source)?;
        [Some(cond), self.negative.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|cond| Ok(self.model.check_conditioning(cond)?))
    }

    /// The conditions, under guidance followed by the negative or null conditions.
    fn with_uncond(&self, cond: &Conditioning, guided: bool) -> Result<Conditioning> {
        let uncond = guided.then(|| match &self.negative {
            Some(negative) => repeat_first(negative, cond.batch_size()),
            None => self.model.null_conditioning(cond),
        });
        uncond.iter().try_for_each(|uncond| self.model.check_conditioning(uncond))?;
        let parts: Vec<&Conditioning> = [Some(cond), uncond.as_ref()].into_iter().flatten().collect();
        Ok(Conditioning::cat(&parts)?)
    }

    /// The network's batch: the conditions, under guidance the unconditional half, and copies of
    /// the first condition up to a multiple of the backend's rows, so that image i is the same at
    /// any batch size.
    fn rows(&self, cond: &Conditioning, guided: bool) -> Result<Conditioning> {
        let used = self.with_uncond(cond, guided)?;
        match (-used.batch_size()).rem_euclid(self.model.batch_multiple()) {
            0 => Ok(used),
            missing => Ok(Conditioning::cat(&[&used, &repeat_first(cond, missing)])?),
        }
    }
}

fn check_batch(b: i64, source: &RandomSource) -> Result<()> {
    match source {
        _ if b == 0 => Err(Error::NoConditions),
        RandomSource::Streams(s) | RandomSource::Gumbel(s) if s.len() as i64 != b => {
            Err(Error::Streams { conditions: b, streams: s.len() })
        }
        _ => Ok(()),
    }
}

/// Keeps libtorch's operations on the caller's thread until dropped: after each parallel operation
/// libtorch's other threads spin for a millisecond, on processors that the network's own threads
/// need.
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
