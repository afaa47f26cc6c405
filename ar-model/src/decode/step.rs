//! The interface between a transformer and the sampler.

use libtorch_ext::cuda_kernel::KernelLauncher;
use tch::Tensor;

use crate::conditioning::Conditioning;
use crate::error::Result;
use crate::spec::ArSpec;

/// A model that codes can be drawn from, one after the other.
pub trait AutoregressiveModel {
    /// Decoding state carried between steps (KV cache).
    type Cache;
    /// Sizes of its codes and conditions.
    fn spec(&self) -> &ArSpec;
    /// Checks the conditions, so that the other methods need not.
    ///
    /// # Errors
    /// Returns an error if they are of another kind, shape or range than the model's.
    fn check_conditioning(&self, cond: &Conditioning) -> Result<()>;
    /// The null condition, once for each of `like`.
    fn null_conditioning(&self, like: &Conditioning) -> Conditioning;
    /// A cache for `batch` sequences; it may be used again for any number of generations.
    fn new_cache(&self, batch: i64) -> Self::Cache;
    /// Runs the condition; logits of the first code, (B, V) fp32.
    fn prefill(&self, cond: &Conditioning, cache: &mut Self::Cache) -> Tensor;
    /// Runs one code, (B, 1), at `position` of the sequence (T + t for code t); logits of the next, (B, V)
    /// fp32.
    fn decode_step(&self, codes: &Tensor, position: i64, cache: &mut Self::Cache) -> Tensor {
        self.decode_chunk(codes, position, cache).squeeze_dim(1)
    }
    /// Runs K codes at once, (B, K), from `position` on; logits of the code after each, (B, K, V) fp32. The
    /// cache is overwritten from `position` on, so a rejected draft is simply run over.
    fn decode_chunk(&self, codes: &Tensor, position: i64, cache: &mut Self::Cache) -> Tensor;
    /// A row's result is the same in every batch that is a whole multiple of this many rows. Matrix products
    /// round differently where a few rows are left over from the kernel's tile, and such a difference, of
    /// 1e-6 in a logit, moves an image across the edge between two codes now and then (3 of 16 images of a
    /// random model between batches of 1 and 16). libtorch's tiles have 8 rows or fewer, and a product with 8
    /// takes no longer than one with 2.
    fn batch_multiple(&self) -> i64 {
        8
    }
    /// Whether it decodes with its own threads, so that libtorch's had better leave the processor alone.
    fn has_own_threads(&self) -> bool {
        false
    }
    /// Teacher-forced logits of all codes, (B, N) → (B, N, V) fp32, as in evaluation.
    fn logits(&self, cond: &Conditioning, codes: &Tensor) -> Tensor;
    /// A decode step that can be captured in a CUDA graph, where the backend has one.
    fn capturable(&self) -> Option<&dyn CapturableStep<Self::Cache>> {
        None
    }
}

/// A decode step made of the same operations on the same memory whatever the position, so that it can be
/// captured once and replayed.
pub trait CapturableStep<C> {
    /// As [`AutoregressiveModel::decode_step`], with the position in a tensor, (1) int64 on the model's
    /// device and below `length`: nothing waits for the host, and all that changes from one step to the next
    /// is in tensors.
    fn decode_step_at(&self, codes: &Tensor, position: &Tensor, length: i64, cache: &mut C) -> Tensor;
    /// The launcher of the backend's kernels, where it has some for the device.
    fn launcher(&self) -> Option<&'static dyn KernelLauncher>;
}
