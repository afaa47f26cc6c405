//! The interface between transformer and sampler.

use libtorch_ext::cuda_kernel::KernelLauncher;
use tch::Tensor;

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
