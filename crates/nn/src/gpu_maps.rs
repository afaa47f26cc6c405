//! Layers through [`cuda_kernels`]: for channels-last maps on a GPU that need no gradient. Results
//! are channels last, too.

use cuda_kernels::Norm;
use libtorch_ext::cuda_kernel::CudaKernels;
use tch::{Device, Kind, Tensor};

/// Group norm of `x` (B, C, H, W), if these kernels can read it. Maps are channels last on a GPU if
/// the weights of their convolutions are; the kernels were available when these were packed.
pub(super) fn group_norm(x: &Tensor, norm: &Norm) -> Option<Tensor> {
    let Device::Cuda(index) = x.device() else { return None };
    let trained = |t: &Tensor| t.requires_grad();
    let pixels = x.permute([0, 2, 3, 1]);
    let here = x.kind() == Kind::BFloat16 && pixels.is_contiguous() && !x.is_contiguous();
    if !here || trained(x) || norm.affine.is_some_and(|(scale, shift)| trained(scale) || trained(shift)) {
        return None;
    }
    let launcher = CudaKernels::shared(index).ok()?;
    let normed = cuda_kernels::group_norm(launcher, &pixels, norm);
    // As tch's own operations do.
    Some(normed.unwrap_or_else(|e| panic!("{e}"))?.permute([0, 3, 1, 2]))
}
