//! Decoding by a captured step: on a GPU the kernels of one step, sampling included, become a CUDA
//! graph, which is replayed for every further code. A small network's step is a few hundred
//! launches that take longer than their work (LlamaGen's own timings are 1 ms per layer and step
//! whatever the width); a replay is one launch.
//!
//! Everything that changes from step to step is in tensors with fixed memory (`StaticBuffers`), and
//! attention reads the cache up to the next multiple of `CACHE_BUCKET`, so that a few graphs serve
//! all positions.
//!
//! B images, R rows of the network (with and without condition), N codes per image, T prefix length

use std::collections::BTreeMap;

use ar_model::{ArSpec, CapturableStep};
use base::SampleStream;
use libtorch_ext::cuda_graph::{CudaGraphs, Graph, Stream};
use libtorch_ext::cuda_kernel::KernelLauncher;
use tch::{Device, Kind, Tensor};

use crate::batch::{apply_cfg_tensor_scale, row_to_image};
use crate::config::SamplingConfig;
use crate::error::Result;
use crate::filter::KernelFilters;
use crate::sample::{self, RandomInputs};

/// Positions of the cache by which the attended lengths of two graphs differ.
const CACHE_BUCKET: i64 = 64;

/// Static input and output buffers of the captured step.
#[derive(Debug)]
struct StaticBuffers {
    position: Tensor, // (1) of the input code
    input: Tensor,    // (R, 1) input codes
    image: Tensor,    // (R) image of each row
    scales: Tensor,   // (N) guidance scale of each code
    uniforms: Tensor, // (B, N) float64
    codes: Tensor,    // (B, N)
}

/// The captured step for batches of one size and configuration: graphs by the length of the cache
/// that they read.
pub(crate) struct CapturedStep {
    b: i64,
    config: SamplingConfig,
    spec: ArSpec,
    buffers: StaticBuffers,
    graphs: BTreeMap<i64, Graph>,
    /// The sampling kernel: its launcher, and the filters in its form.
    kernel: Option<(&'static dyn KernelLauncher, KernelFilters)>,
}

impl CapturedStep {
    /// A step without graphs, for batches of `[B, R]`.
    pub fn new(
        spec: &ArSpec,
        launcher: Option<&'static dyn KernelLauncher>,
        [b, rows]: [i64; 2],
        config: &SamplingConfig,
        device: Device,
    ) -> Self {
        let n = spec.num_tokens;
        let guided = config.guidance.active();
        let scales: Vec<f32> =
            (0..n as usize).map(|step| config.guidance.at(step, n as usize) as f32).collect();
        let codes = |shape: [i64; 2]| Tensor::zeros(shape, (Kind::Int64, device));
        let buffers = StaticBuffers {
            position: Tensor::zeros([1], (Kind::Int64, device)),
            input: codes([rows, 1]),
            image: row_to_image(rows, b, guided).to_device(device),
            scales: Tensor::from_slice(&scales).to_device(device),
            uniforms: Tensor::zeros([b, n], (Kind::Double, device)),
            codes: codes([b, n]),
        };
        let kernel = launcher.zip(config.kernel_filters());
        CapturedStep {
            b,
            config: config.clone(),
            spec: spec.clone(),
            buffers,
            graphs: BTreeMap::new(),
            kernel,
        }
    }

    /// Whether it was made for batches of this size and configuration.
    pub fn serves(&self, b: i64, config: &SamplingConfig) -> bool {
        self.b == b && self.config == *config
    }

    /// Samples all codes, (B, N): the first from the prefill's logits, (R, V).
    ///
    /// # Errors
    /// Returns an error if CUDA graphs are not available.
    pub fn decode<C>(
        &mut self,
        model: &dyn CapturableStep<C>,
        logits: &Tensor,
        streams: &[SampleStream],
        cache: &mut C,
    ) -> Result<Tensor> {
        let uniforms = sample::uniforms(streams, self.spec.num_tokens as usize, Device::Cpu);
        self.buffers.uniforms.copy_(&uniforms);
        let _ = self.buffers.position.fill_(self.spec.prefix_len - 1); // of the prefix's last position
        self.sample(logits);
        match self.buffers.codes.device() {
            Device::Cuda(i) => {
                CudaGraphs::open(i)?.on_stream(|stream| self.steps(model, cache, Some(stream)))?;
            }
            _ => self.steps(model, cache, None)?,
        }
        Ok(self.buffers.codes.copy())
    }

    fn steps<C>(
        &mut self,
        model: &dyn CapturableStep<C>,
        cache: &mut C,
        stream: Option<&Stream>,
    ) -> Result<()> {
        let (first, n) = (self.spec.prefix_len, self.spec.num_tokens);
        for position in first..first + n - 1 {
            let length = ((position / CACHE_BUCKET + 1) * CACHE_BUCKET).min(first + n);
            if let (Some(stream), Some(graph)) = (stream, self.graphs.get(&length)) {
                stream.replay(graph)?;
                continue;
            }
            self.step(model, length, cache);
            if let Some(stream) = stream {
                let graph = stream.capture(|| self.step(model, length, cache))?;
                self.graphs.insert(length, graph);
            }
        }
        Ok(())
    }

    /// Runs the input codes, and samples the next ones.
    fn step<C>(&self, model: &dyn CapturableStep<C>, length: i64, cache: &mut C) {
        let logits = model.decode_step_at(&self.buffers.input, &self.buffers.position, length, cache);
        self.sample(&logits);
    }

    /// Logits of all rows, (R, V) → the next code of each image, written to the next step's
    /// input.
    fn sample(&self, logits: &Tensor) {
        match self.kernel {
            Some((launcher, filters)) => self.sample_by_kernel(logits, launcher, filters),
            None => self.sample_by_tensors(logits),
        }
        let _ = self.buffers.position.shallow_clone().g_add_scalar_(1);
    }

    fn sample_by_kernel(&self, logits: &Tensor, launcher: &dyn KernelLauncher, filters: KernelFilters) {
        let StaticBuffers { position, input, scales, uniforms, codes, image: _ } = &self.buffers;
        let KernelFilters { temperature, top_k, min_p } = filters;
        let args = cuda_kernels::SampleArgs {
            logits,
            scales: self.config.guidance.active().then_some(scales),
            uniforms,
            position,
            codes,
            input,
            before: self.spec.prefix_len - 1,
            top_k,
            greedy: self.config.is_greedy(),
            temperature,
            min_p,
        };
        // Panics like tch's own operations.
        cuda_kernels::sample(launcher, &args).unwrap_or_else(|e| panic!("{e}"));
    }

    fn sample_by_tensors(&self, logits: &Tensor) {
        let StaticBuffers { position, input, image, scales, uniforms, codes } = &self.buffers;
        let number = position - (self.spec.prefix_len - 1); // of the code to sample
        let guided = if self.config.guidance.active() {
            apply_cfg_tensor_scale(logits, self.b, &scales.index_select(0, &number))
        } else {
            logits.narrow(0, 0, self.b)
        };
        let inputs = RandomInputs::Uniforms(uniforms.index_select(1, &number));
        let code = sample::sample(&guided, &self.config, &inputs); // (B, 1)
        let _ = codes.shallow_clone().index_copy_(1, &number, &code);
        input.shallow_clone().copy_(&code.index_select(0, image).clamp_min(0));
    }
}
