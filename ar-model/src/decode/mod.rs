//! Decoding: a [`Decoder`] is made from a network, for one backend.
//!
//! B batch, T prefix length, N codes, V vocabulary

mod cpu;
mod gpu;
mod kernel_decoder;
mod step;
mod torch;

use base::Precision;
use libtorch_ext::cuda_kernel::KernelLauncher;
use tch::{Device, Tensor};

use crate::conditioning::Conditioning;
use crate::config::ArConfig;
use crate::error::{Error, Result};
use crate::kv_cache::KvCache;
use crate::model::Gpt;
use crate::spec::ArSpec;

pub use cpu::{CpuDecoder, CpuKernels};
pub use gpu::{GpuDecoder, GpuFormats, GpuKernels};
pub use kernel_decoder::{DecodeKernels, KernelDecoder};
pub use step::{AutoregressiveModel, CacheRow, CapturableStep, RowwiseModel};

/// Implementation of a decode step.
#[derive(Debug, Clone, Copy)]
pub enum Backend {
    /// libtorch's operations, on any device.
    Torch,
    /// The kernels for the CPU, with weights of this format.
    Cpu(cpu_kernels::Format),
    /// The kernels for a GPU.
    Gpu {
        /// Formats of weights and cache.
        formats: GpuFormats,
        /// Device that runs the kernels.
        launcher: &'static dyn KernelLauncher,
    },
}

impl Backend {
    /// Default backend: the CPU's kernels if they support `precision` (fp32, bf16, int8), else
    /// libtorch.
    pub fn default_for(device: Device, precision: Precision) -> Backend {
        let format = cpu::format(precision).filter(|_| device == Device::Cpu);
        format.map_or(Backend::Torch, Backend::Cpu)
    }

    /// The first option of a configuration that this backend does not support, if there is one.
    pub fn unsupported_reason(&self, config: &ArConfig) -> Option<String> {
        match self {
            Backend::Torch => torch::unsupported_reason(config),
            Backend::Cpu(_) => cpu::unsupported_reason(config),
            Backend::Gpu { .. } => gpu::unsupported_reason(config),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Backend::Torch => "libtorch's operations",
            Backend::Cpu(_) => "the kernels for the CPU",
            Backend::Gpu { .. } => "the kernels for a GPU",
        }
    }
}

/// A transformer for decoding and evaluation, without training and hidden states.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // few instances exist
pub enum Decoder {
    /// Decodes with libtorch's operations.
    Torch(Gpt),
    /// Decodes with the kernels for the CPU.
    Cpu(CpuDecoder),
    /// Decodes with the kernels for a GPU.
    Gpu(GpuDecoder),
}

impl Gpt {
    /// Makes a decoder of this network. Backends with custom kernels copy the layers' weights into
    /// the kernels' format and **empty the variables**, whoever else holds them.
    ///
    /// # Errors
    /// Returns an error if the backend does not support the configuration, or its kernels cannot be
    /// run.
    pub fn into_decoder(self, backend: Backend) -> Result<Decoder> {
        if let Some(found) = backend.unsupported_reason(&self.config) {
            return Err(Error::Unsupported { by: backend.name(), found });
        }
        let _guard = tch::no_grad_guard();
        Ok(match backend {
            Backend::Torch => Decoder::Torch(self),
            Backend::Cpu(format) => Decoder::Cpu(cpu::pack(self, format)),
            Backend::Gpu { formats, launcher } => Decoder::Gpu(gpu::pack(self, formats, launcher)?),
        })
    }
}

macro_rules! each {
    ($self:expr, $m:ident => $body:expr) => {
        match $self {
            Decoder::Torch($m) => $body,
            Decoder::Cpu($m) => $body,
            Decoder::Gpu($m) => $body,
        }
    };
}

macro_rules! each_with_cache {
    ($self:expr, $cache:expr, $m:ident, $c:ident => $body:expr) => {
        match ($self, $cache) {
            (Decoder::Torch($m), Cache::Torch($c)) => $body,
            (Decoder::Cpu($m), Cache::Cpu($c)) => $body,
            (Decoder::Gpu($m), Cache::Gpu($c)) => $body,
            _ => foreign_cache(),
        }
    };
}

impl Decoder {
    /// Configuration of the network.
    pub fn config(&self) -> &ArConfig {
        each!(self, m => m.config())
    }

    /// Bytes of the weights that a step reads, if the backend has its own format.
    pub fn weight_bytes(&self) -> Option<usize> {
        match self {
            Decoder::Torch(_) => None,
            Decoder::Cpu(m) => Some(m.weight_bytes()),
            Decoder::Gpu(m) => Some(m.weight_bytes()),
        }
    }
}

/// Decoding state of a [`Decoder`]: the KV cache, and the condition as steps need it.
#[derive(Debug)]
pub enum Cache {
    /// Cache of [`Decoder::Torch`].
    Torch(KvCache),
    /// Cache of [`Decoder::Cpu`].
    Cpu(cpu_kernels::KvCache),
    /// Cache of [`Decoder::Gpu`].
    Gpu(cuda_kernels::KvCache),
}

impl Cache {
    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        match self {
            Cache::Torch(cache) => cache.bytes(),
            Cache::Cpu(cache) => cache.bytes() as u64,
            Cache::Gpu(cache) => cache.bytes(),
        }
    }
}

fn foreign_cache() -> ! {
    panic!("the cache was made by another backend's decoder")
}

impl AutoregressiveModel for Decoder {
    type Cache = Cache;

    fn spec(&self) -> &ArSpec {
        each!(self, m => m.spec())
    }

    fn check_conditioning(&self, cond: &Conditioning) -> Result<()> {
        each!(self, m => m.check_conditioning(cond))
    }

    fn null_conditioning(&self, like: &Conditioning) -> Conditioning {
        each!(self, m => m.null_conditioning(like))
    }

    fn new_cache(&self, batch: i64) -> Cache {
        match self {
            Decoder::Torch(m) => Cache::Torch(m.new_cache(batch)),
            Decoder::Cpu(m) => Cache::Cpu(m.new_cache(batch)),
            Decoder::Gpu(m) => Cache::Gpu(m.new_cache(batch)),
        }
    }

    fn prefill(&self, cond: &Conditioning, cache: &mut Cache) -> Tensor {
        each_with_cache!(self, cache, m, c => m.prefill(cond, c))
    }

    fn decode_chunk(&self, codes: &Tensor, position: i64, cache: &mut Cache) -> Tensor {
        each_with_cache!(self, cache, m, c => m.decode_chunk(codes, position, c))
    }

    fn batch_multiple(&self) -> i64 {
        each!(self, m => m.batch_multiple())
    }

    fn has_own_threads(&self) -> bool {
        each!(self, m => m.has_own_threads())
    }

    fn logits(&self, cond: &Conditioning, codes: &Tensor) -> Tensor {
        each!(self, m => m.logits(cond, codes))
    }

    fn capturable(&self) -> Option<&dyn CapturableStep<Cache>> {
        match self {
            Decoder::Torch(m) => Some(m),
            Decoder::Cpu(_) => None,
            Decoder::Gpu(m) => Some(m),
        }
    }
}

impl RowwiseModel for Decoder {
    fn device(&self) -> Device {
        each!(self, m => m.device())
    }

    fn prefill_rows(&self, cond: &Conditioning, rows: &[i64], cache: &mut Cache) -> Tensor {
        each_with_cache!(self, cache, m, c => m.prefill_rows(cond, rows, c))
    }

    fn decode_rows(&self, codes: &Tensor, rows: &[CacheRow], cache: &mut Cache) -> Tensor {
        each_with_cache!(self, cache, m, c => m.decode_rows(codes, rows, c))
    }
}

impl CapturableStep<Cache> for Gpt {
    fn decode_step_at(&self, codes: &Tensor, position: &Tensor, length: i64, cache: &mut Cache) -> Tensor {
        let Cache::Torch(cache) = cache else { foreign_cache() };
        CapturableStep::<KvCache>::decode_step_at(self, codes, position, length, cache)
    }

    fn launcher(&self) -> Option<&'static dyn KernelLauncher> {
        CapturableStep::<KvCache>::launcher(self)
    }
}

impl CapturableStep<Cache> for GpuDecoder {
    fn decode_step_at(&self, codes: &Tensor, position: &Tensor, length: i64, cache: &mut Cache) -> Tensor {
        let Cache::Gpu(cache) = cache else { foreign_cache() };
        CapturableStep::<cuda_kernels::KvCache>::decode_step_at(self, codes, position, length, cache)
    }

    fn launcher(&self) -> Option<&'static dyn KernelLauncher> {
        CapturableStep::<cuda_kernels::KvCache>::launcher(self)
    }
}
