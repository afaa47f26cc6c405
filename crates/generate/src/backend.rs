//! Choice of the backend that decodes.

use ar_model::{Backend, Decoder, Gpt, GpuFormats};
use base::{Precision, Vars};
use cuda_kernels::Format;
use libtorch_ext::cuda_graph;
use libtorch_ext::cuda_kernel::CudaKernels;
use settings::GpuOptions;
use tch::Device;

use crate::error::{Error, Result};

/// Makes a decoder of a transformer: by the CPU's kernels, by those of a GPU where they are asked
/// for or its weights are int8, else by libtorch.
///
/// # Errors
/// Returns an error if [`check_gpu`] does, or the backend does not support the model.
pub fn decoder(model: Gpt, device: Device, precision: Precision, gpu: GpuOptions) -> Result<Decoder> {
    Ok(model.into_decoder(backend(device, precision, gpu)?)?)
}

fn backend(device: Device, precision: Precision, gpu: GpuOptions) -> Result<Backend> {
    let (Some(formats), Device::Cuda(index)) = (check_gpu(device, precision, gpu)?, device) else {
        return Ok(Backend::default_for(device, precision));
    };
    let launcher = CudaKernels::shared(index).map_err(|source| Error::Kernels { source })?;
    Ok(Backend::Gpu { formats, launcher })
}

/// Makes a tokenizer ready for a GPU's kernels where they are asked for and it computes in bf16,
/// the one dtype that they support.
///
/// # Errors
/// Returns an error if the kernels cannot be run.
pub fn pack_tokenizer(model: &mut tokenizer::Model, vars: &Vars, gpu: GpuOptions) -> Result<()> {
    if gpu.gpu_kernels {
        model.pack_on_gpu(vars)?;
    }
    Ok(())
}

/// Formats of the GPU's kernels where they are to be used.
///
/// # Errors
/// Returns an error if an option is given that the device or the precision does not allow.
pub fn check_gpu(device: Device, precision: Precision, gpu: GpuOptions) -> Result<Option<GpuFormats>> {
    let option = match gpu {
        GpuOptions { int8_cache: true, .. } => Some("--int8-cache"),
        GpuOptions { gpu_kernels: true, .. } => Some("--gpu-kernels"),
        _ => None,
    };
    if !device.is_cuda() {
        let device = base::device::name(device);
        return option.map_or(Ok(None), |option| Err(Error::KernelsNeedCuda { option, device }));
    }
    let weights = match (precision, option) {
        (Precision::Int8, _) => Format::Int8,
        (Precision::Bf16, Some(_)) => Format::Bf16,
        (_, Some(option)) => return Err(Error::KernelsPrecision { option, precision }),
        (_, None) => return Ok(None),
    };
    let cache = if gpu.int8_cache { Format::Int8 } else { Format::Bf16 };
    Ok(Some(GpuFormats { weights, cache }))
}

/// Refuses CUDA graphs where none can be captured.
///
/// # Errors
/// Returns an error if the device is no GPU, or the program is built without CUDA's headers.
pub fn check_cuda_graphs(device: Device) -> Result<()> {
    match (device.is_cuda(), cuda_graph::built_in()) {
        (true, true) => Ok(()),
        (false, _) => Err(Error::GraphsNeedCuda { device: base::device::name(device) }),
        (true, false) => Err(Error::GraphsNotBuilt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: GpuOptions = GpuOptions { gpu_kernels: false, int8_cache: false };
    const KERNELS: GpuOptions = GpuOptions { gpu_kernels: true, int8_cache: false };
    const CACHE: GpuOptions = GpuOptions { gpu_kernels: false, int8_cache: true };

    #[test]
    fn kernels_are_for_cuda_in_bf16_and_int8() {
        let formats = |precision, gpu| {
            check_gpu(Device::Cuda(0), precision, gpu).unwrap().map(|f| (f.weights, f.cache))
        };
        assert_eq!(formats(Precision::Fp32, NONE), None);
        assert_eq!(formats(Precision::Bf16, NONE), None);
        assert_eq!(formats(Precision::Bf16, KERNELS), Some((Format::Bf16, Format::Bf16)));
        assert_eq!(formats(Precision::Bf16, CACHE), Some((Format::Bf16, Format::Int8)));
        assert_eq!(formats(Precision::Int8, NONE), Some((Format::Int8, Format::Bf16)));
        assert_eq!(formats(Precision::Int8, CACHE), Some((Format::Int8, Format::Int8)));
        let refused = |device, precision, gpu| check_gpu(device, precision, gpu).unwrap_err().to_string();
        assert!(refused(Device::Cuda(0), Precision::Fp32, KERNELS).contains("not fp32"));
        assert!(refused(Device::Cpu, Precision::Bf16, CACHE).contains("`--int8-cache` is for CUDA"));
        assert!(check_gpu(Device::Cpu, Precision::Int8, NONE).unwrap().is_none());
    }
}
