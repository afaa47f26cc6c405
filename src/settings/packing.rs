//! The form in which models decode.

use ar_model::{Backend, Decoder, Gpt, GpuFormats};
use base::{Precision, Vars};
use choices::GpuOptions;
use cuda_kernels::Format;
use libtorch_ext::cuda_kernel::CudaKernels;
use tch::Device;

use crate::failure::Failure;

/// Makes a decoder of a transformer: by the CPU's kernels, by those of a GPU where they are asked for or its weights are
/// int8, else by libtorch.
pub fn decoder(model: Gpt, device: Device, precision: Precision, gpu: GpuOptions) -> anyhow::Result<Decoder> {
    Ok(model.into_decoder(backend(device, precision, gpu)?)?)
}

fn backend(device: Device, precision: Precision, gpu: GpuOptions) -> anyhow::Result<Backend> {
    let Some(formats) = check(device, precision, gpu)? else {
        return Ok(Backend::default_for(device, precision));
    };
    let Device::Cuda(index) = device else { unreachable!("checked") };
    let launcher = CudaKernels::shared(index).map_err(|e| {
        Failure::new(format!("cannot use the kernels for a GPU: {e}"))
            .hint("`--precision bf16` without `--gpu-kernels` and `--int8-cache` decodes with libtorch alone")
    })?;
    Ok(Backend::Gpu { formats, launcher })
}

/// Makes a tokenizer ready for a GPU's kernels where they are asked for and it computes in bf16, which they know.
pub fn pack_tokenizer(model: &mut tokenizer::Model, vars: &Vars, gpu: GpuOptions) -> anyhow::Result<()> {
    if gpu.gpu_kernels {
        model.pack_on_gpu(vars)?;
    }
    Ok(())
}

/// The formats of the GPU's kernels where they are to be used. Refuses what cannot be had, before anything is loaded.
pub fn check(device: Device, precision: Precision, gpu: GpuOptions) -> anyhow::Result<Option<GpuFormats>> {
    let flag = match gpu {
        GpuOptions { int8_cache: true, .. } => Some("--int8-cache"),
        GpuOptions { gpu_kernels: true, .. } => Some("--gpu-kernels"),
        _ => None,
    };
    if !device.is_cuda() {
        let name = base::device::name(device);
        let refuse = |flag| Failure::new(format!("`{flag}` is for CUDA devices, and the device is {name}"));
        let hint = "leave it out: on the CPU the program's own kernels decode without asking";
        return flag.map_or(Ok(None), |flag| Err(refuse(flag).hint(hint).into()));
    }
    let weights = match (precision, flag) {
        (Precision::Int8, _) => Format::Int8,
        (Precision::Bf16, Some(_)) => Format::Bf16,
        (_, Some(flag)) => {
            let failure = Failure::new(format!("`{flag}` needs weights in bf16 or int8, not {precision}"));
            return Err(failure.hint("add `--precision bf16`").into());
        }
        (_, None) => return Ok(None),
    };
    let cache = if gpu.int8_cache { Format::Int8 } else { Format::Bf16 };
    Ok(Some(GpuFormats { weights, cache }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: GpuOptions = GpuOptions { gpu_kernels: false, int8_cache: false };
    const KERNELS: GpuOptions = GpuOptions { gpu_kernels: true, int8_cache: false };
    const CACHE: GpuOptions = GpuOptions { gpu_kernels: false, int8_cache: true };

    #[test]
    fn kernels_are_for_cuda_in_bf16_and_int8() {
        let formats =
            |precision, gpu| check(Device::Cuda(0), precision, gpu).unwrap().map(|f| (f.weights, f.cache));
        assert_eq!(formats(Precision::Fp32, NONE), None);
        assert_eq!(formats(Precision::Bf16, NONE), None);
        assert_eq!(formats(Precision::Bf16, KERNELS), Some((Format::Bf16, Format::Bf16)));
        assert_eq!(formats(Precision::Bf16, CACHE), Some((Format::Bf16, Format::Int8)));
        assert_eq!(formats(Precision::Int8, NONE), Some((Format::Int8, Format::Bf16)));
        assert_eq!(formats(Precision::Int8, CACHE), Some((Format::Int8, Format::Int8)));
        let refused = |device, precision, gpu| check(device, precision, gpu).unwrap_err().to_string();
        assert!(refused(Device::Cuda(0), Precision::Fp32, KERNELS).contains("not fp32"));
        assert!(refused(Device::Cpu, Precision::Bf16, CACHE).contains("`--int8-cache` is for CUDA"));
        assert!(check(Device::Cpu, Precision::Int8, NONE).unwrap().is_none());
    }
}
