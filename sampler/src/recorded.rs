//! Decoding by a recorded step: on a GPU the kernels of one step, drawing included, become a CUDA graph, which is replayed
//! for every further code. A small network's step is a few hundred launches that take longer than their work
//! (LlamaGen's own timings are 1 ms a layer and step whatever the width); replayed, it is one.
//!
//! All that changes from step to step is in tensors that keep their places (`Slots`), and attention reads a length
//! of the cache that is the next multiple of `PIECE`, so that a few recordings serve all positions.
//!
//! B images, R rows of the network (with and without condition), N codes per image, T prefix length

use std::collections::BTreeMap;

use ar_model::{ArSpec, AutoregressiveModel, CapturableStep, Conditioning};
use base::Codes;
use libtorch_ext::cuda_graph::{CudaGraphs, Graph, Stream};
use libtorch_ext::cuda_kernel::Launch;
use tch::{Device, Kind, Tensor};

use crate::decode::{check_batch, guide_by, image_of_row};
use crate::{Draw, Error, Result, Sampler, SamplingConfig, choose, filter};

/// A recording reads the cache up to a multiple of this many positions.
const PIECE: i64 = 64;

impl<M: AutoregressiveModel> Sampler<'_, M> {
    /// As [`Sampler::generate`], by a recorded step. Recordings are kept for batches of the same size and settings.
    /// Sums over the cache are of other lengths than without recording, so a code may differ where its random number
    /// falls on the edge between two. On the CPU, which records nothing, the same operations run one by one.
    ///
    /// # Errors
    /// As of [`Sampler::generate`]; [`Draw::Gumbel`] and [`Draw::Torch`], whose numbers are made by the host for
    /// every step; and where CUDA graphs are not to be had.
    pub fn generate_recorded(
        &mut self,
        cond: &Conditioning,
        config: &SamplingConfig,
        draw: Draw,
    ) -> Result<Codes> {
        config.validate()?;
        let b = cond.batch_size();
        check_batch(b, &draw)?;
        self.check(cond)?;
        let Draw::Streams(streams) = draw else { return Err(Error::NotRecordable) };
        let rows = self.rows(cond, config.guidance.active())?;
        let model = self.model;
        let step = model.capturable().ok_or(Error::NotCapturable)?;
        let codes = self.with_cache(rows.batch_size(), |kept| {
            let _guard = tch::no_grad_guard();
            let logits = model.prefill(&rows, &mut kept.cache); // (R, V)
            let mut recording = kept.recording.take().filter(|r| r.serves(b, config)).unwrap_or_else(|| {
                Recording::new(model.spec(), step.launcher(), [b, rows.batch_size()], config, logits.device())
            });
            let uniforms = choose::uniforms(streams, model.spec().num_tokens as usize, Device::Cpu);
            recording.start(&logits, &uniforms);
            recording.run(step, &mut kept.cache)?;
            let codes = recording.slots.codes.copy();
            kept.recording = Some(recording);
            Ok::<_, Error>(codes)
        })?;
        choose::check(&codes, |i| draw.image(i))?;
        Ok(Codes::new(codes)?)
    }
}

/// What a step reads and writes.
#[derive(Debug)]
struct Slots {
    position: Tensor, // (1) of the code that goes in
    input: Tensor,    // (R, 1) codes that go in
    image: Tensor,    // (R) whose codes go into each row
    scales: Tensor,   // (N) guidance scale of each code
    uniforms: Tensor, // (B, N) float64
    codes: Tensor,    // (B, N)
}

/// A step for batches of one size and setting, and its recordings by the length of cache that they read.
pub(crate) struct Recording {
    b: i64,
    config: SamplingConfig,
    spec: ArSpec,
    slots: Slots,
    graphs: BTreeMap<i64, Graph>,
    /// What draws with a kernel of its own.
    engine: Option<&'static dyn Launch>,
}

impl Recording {
    fn new(
        spec: &ArSpec,
        launcher: Option<&'static dyn Launch>,
        [b, rows]: [i64; 2],
        config: &SamplingConfig,
        device: Device,
    ) -> Self {
        let n = spec.num_tokens;
        let guided = config.guidance.active();
        let scales: Vec<f32> =
            (0..n as usize).map(|step| config.guidance.at(step, n as usize) as f32).collect();
        let codes = |shape: [i64; 2]| Tensor::zeros(shape, (Kind::Int64, device));
        let slots = Slots {
            position: Tensor::zeros([1], (Kind::Int64, device)),
            input: codes([rows, 1]),
            image: image_of_row(rows, b, guided).to_device(device),
            scales: Tensor::from_slice(&scales).to_device(device),
            uniforms: Tensor::zeros([b, n], (Kind::Double, device)),
            codes: codes([b, n]),
        };
        // Top-p needs libtorch's sort.
        let engine = launcher.filter(|_| config.top_p.is_none_or(|p| p >= 1.0));
        Recording { b, config: *config, spec: spec.clone(), slots, graphs: BTreeMap::new(), engine }
    }

    fn serves(&self, b: i64, config: &SamplingConfig) -> bool {
        self.b == b && self.config == *config
    }

    /// Draws the first codes from the prefill's logits, (R, V), and sets the slots for what follows.
    fn start(&mut self, logits: &Tensor, uniforms: &Tensor) {
        self.slots.uniforms.copy_(uniforms);
        let _ = self.slots.position.fill_(self.spec.prefix_len - 1); // as if a code had gone in before the first
        self.draw(logits);
    }

    /// Draws all further codes.
    fn run<C>(&mut self, model: &dyn CapturableStep<C>, cache: &mut C) -> Result<()> {
        match self.slots.codes.device() {
            Device::Cuda(i) => {
                CudaGraphs::open(i)?.on_stream(|stream| self.steps(model, cache, Some(stream)))
            }
            _ => self.steps(model, cache, None),
        }
    }

    fn steps<C>(
        &mut self,
        model: &dyn CapturableStep<C>,
        cache: &mut C,
        stream: Option<&Stream>,
    ) -> Result<()> {
        let (first, n) = (self.spec.prefix_len, self.spec.num_tokens);
        for position in first..first + n - 1 {
            let length = ((position / PIECE + 1) * PIECE).min(first + n);
            if let (Some(stream), Some(graph)) = (stream, self.graphs.get(&length)) {
                stream.replay(graph)?;
                continue;
            }
            self.step(model, length, cache);
            if let Some(stream) = stream {
                let graph = stream.record(|| self.step(model, length, cache))?;
                self.graphs.insert(length, graph);
            }
        }
        Ok(())
    }

    /// Runs the codes that go in, and draws the next ones.
    fn step<C>(&self, model: &dyn CapturableStep<C>, length: i64, cache: &mut C) {
        let logits = model.decode_step_at(&self.slots.input, &self.slots.position, length, cache);
        self.draw(&logits);
    }

    /// Logits of all rows, (R, V) → the next code of each image, put where the next step finds it.
    fn draw(&self, logits: &Tensor) {
        match self.engine {
            Some(engine) => self.draw_by_kernel(logits, engine),
            None => self.draw_by_tensors(logits),
        }
        let _ = self.slots.position.shallow_clone().g_add_scalar_(1);
    }

    fn draw_by_kernel(&self, logits: &Tensor, engine: &dyn Launch) {
        let (Slots { position, input, scales, uniforms, codes, .. }, config) = (&self.slots, &self.config);
        let draw = cuda_kernels::Draw {
            logits,
            scales: config.guidance.active().then_some(scales),
            uniforms,
            position,
            codes,
            input,
            before: self.spec.prefix_len - 1,
            top_k: config.top_k.unwrap_or(0),
            best: config.takes_the_best(),
            temperature: config.temperature.max(filter::TEMPERATURE_FLOOR),
            min_p: config.min_p.unwrap_or(0.0),
        };
        // As tch's own operations do.
        cuda_kernels::draw(engine, &draw).unwrap_or_else(|e| panic!("{e}"));
    }

    fn draw_by_tensors(&self, logits: &Tensor) {
        let Slots { position, input, image, scales, uniforms, codes } = &self.slots;
        let number = position - (self.spec.prefix_len - 1); // of the code to draw
        let guided = if self.config.guidance.active() {
            guide_by(logits, self.b, &scales.index_select(0, &number))
        } else {
            logits.narrow(0, 0, self.b)
        };
        let code = if self.config.takes_the_best() {
            choose::greedy(&guided)
        } else {
            choose::invert(&filter::apply(&guided, &self.config), &uniforms.index_select(1, &number))
        }; // (B, 1)
        let code = choose::marked(&code, &guided);
        let _ = codes.shallow_clone().index_copy_(1, &number, &code);
        input.shallow_clone().copy_(&code.index_select(0, image).clamp_min(0));
    }
}
