//! The interface between transformer and sampler.

use libtorch_ext::cuda_kernel::KernelLauncher;
use tch::{Device, Kind, Tensor};

use crate::conditioning::Conditioning;
use crate::error::Result;
use crate::spec::ArSpec;

/// A model of code sequences that is sampled code by code.
pub trait AutoregressiveModel {
    /// Decoding state carried between steps (KV cache).
    type Cache;
    /// Sizes of codes and conditions.
    fn spec(&self) -> &ArSpec;
    /// Checks conditions; the other methods assume checked ones.
    ///
    /// # Errors
    /// Returns an error if their type, shape or range does not match the model.
    fn check_conditioning(&self, cond: &Conditioning) -> Result<()>;
    /// Null conditions, one for each of `like`.
    fn null_conditioning(&self, like: &Conditioning) -> Conditioning;
    /// A cache for `batch` sequences, reusable for any number of generations.
    fn new_cache(&self, batch: i64) -> Self::Cache;
    /// Runs the condition; logits of the first code, (B, V) fp32.
    fn prefill(&self, cond: &Conditioning, cache: &mut Self::Cache) -> Tensor;
    /// Runs one code, (B, 1), at `position` of the sequence (T + t for code t); logits of the next,
    /// (B, V) fp32.
    fn decode_step(&self, codes: &Tensor, position: i64, cache: &mut Self::Cache) -> Tensor {
        self.decode_chunk(codes, position, cache).squeeze_dim(1)
    }
    /// Runs K codes at once, (B, K), from `position` on; logits of the code after each, (B, K, V)
    /// fp32. The cache is overwritten from `position` on, so that a rejected draft needs no
    /// rollback.
    fn decode_chunk(&self, codes: &Tensor, position: i64, cache: &mut Self::Cache) -> Tensor;
    /// Number of rows of which batches must be a multiple for a row's result to be the same in
    /// each. Matrix products round the remainder of a kernel's tile differently, and such a
    /// difference, of 1e-6 in a logit, now and then changes a code (in 3 of 16 images of a random
    /// model between batches of 1 and 16). libtorch's tiles have 8 rows or fewer, and a product
    /// with 8 takes no longer than one with 2.
    fn batch_multiple(&self) -> i64 {
        8
    }
    /// Whether it decodes with its own threads, with which libtorch's threads compete for the
    /// processor.
    fn has_own_threads(&self) -> bool {
        false
    }
    /// Teacher-forced logits of all codes, (B, N) → (B, N, V) fp32, as in evaluation.
    fn logits(&self, cond: &Conditioning, codes: &Tensor) -> Tensor;
    /// A decode step that can be captured in a CUDA graph, if the backend has one.
    fn capturable(&self) -> Option<&dyn CapturableStep<Self::Cache>> {
        None
    }
}

/// Row of a cache, and the position of its next input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheRow {
    /// Sequence of the cache.
    pub row: i64,
    /// Position in the sequence (T + t for code t).
    pub position: i64,
}

/// Sequences of one cache that enter, step and leave by themselves (continuous batching). A row's
/// logits are those of [`AutoregressiveModel::prefill`] and [`AutoregressiveModel::decode_chunk`],
/// on the CPU to the bit, whichever rows come along and wherever they are.
///
/// The custom kernels take a position for each row. libtorch's operations run all rows together
/// through the layers; on the CPU only rows of equal position attend together, since a sum over
/// masked positions too has another order, and other bits. On a GPU, where images depend on their
/// batch anyway, they attend in one call, with a mask for each row.
pub trait RowwiseModel: AutoregressiveModel {
    /// Device of the codes that it takes.
    fn device(&self) -> Device;
    /// Runs the conditions of some rows, R of them; logits of their first codes, (R, V) fp32. Other
    /// rows stay as they are.
    fn prefill_rows(&self, cond: &Conditioning, rows: &[i64], cache: &mut Self::Cache) -> Tensor;
    /// Runs K codes of some rows at once, (R, K), each row's from its own position on; logits of the
    /// code after each, (R, K, V) fp32. The cache is overwritten from the positions on.
    fn decode_rows(&self, codes: &Tensor, rows: &[CacheRow], cache: &mut Self::Cache) -> Tensor;
}

/// Positions of `k` inputs of each row, (R, k) int64.
pub(super) fn positions_of(rows: &[CacheRow], k: i64, device: Device) -> Tensor {
    let first: Vec<i64> = rows.iter().map(|row| row.position).collect();
    let first = Tensor::from_slice(&first).unsqueeze(1);
    (first + Tensor::arange(k, (Kind::Int64, Device::Cpu))).to_device(device)
}

/// A decode step of the same operations on the same memory at every position, which can be captured
/// once and replayed.
pub trait CapturableStep<C> {
    /// [`AutoregressiveModel::decode_step`] with the position in a tensor, (1) int64 on the model's
    /// device and below `length`. Does not synchronise with the host; everything that changes from
    /// step to step is in tensors.
    fn decode_step_at(&self, codes: &Tensor, position: &Tensor, length: i64, cache: &mut C) -> Tensor;
    /// Launcher of the backend's kernels, if it has custom ones.
    fn launcher(&self) -> Option<&'static dyn KernelLauncher>;
}
