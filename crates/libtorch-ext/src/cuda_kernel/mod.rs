//! Custom CUDA kernels: source text, compiled at first use for the GPU at hand, and launched on
//! libtorch's current stream.
//!
//! tch does not offer this. The compiler is NVRTC, which comes with libtorch's CUDA libraries, so
//! that programs build without CUDA. Tests run the same source on the CPU (`CpuEmulator`, feature
//! `testing`).

mod compiler;
#[cfg(feature = "testing")]
mod cpu_emulator;
mod cuda;

use std::fmt::Debug;
use std::hash::{Hash, Hasher};

use tch::{Device, Tensor};

use crate::Error;

pub use compiler::{compile, compiler_is_present};
#[cfg(feature = "testing")]
pub use cpu_emulator::CpuEmulator;
pub use cuda::CudaKernels;

/// A kernel source and the macros that it is compiled with.
#[derive(Debug, Clone)]
pub struct KernelSource {
    /// Unique name of the source, used in messages.
    pub name: &'static str,
    /// CUDA C++ without includes. Its kernels are `extern "C"` and take one structure each.
    pub text: &'static str,
    /// Threads of a block, the macro `THREADS` of the source.
    pub threads: i64,
    /// Further macros and their values.
    pub defines: Vec<(&'static str, String)>,
}

impl PartialEq for KernelSource {
    fn eq(&self, other: &Self) -> bool {
        (self.name, &self.defines) == (other.name, &other.defines)
    }
}

impl Eq for KernelSource {}

impl Hash for KernelSource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.name, &self.defines).hash(state);
    }
}

impl KernelSource {
    /// `-DNAME=VALUE` for each macro.
    fn options(&self) -> impl Iterator<Item = String> {
        let threads = format!("-DTHREADS={}", self.threads);
        let others = self.defines.iter().map(|(name, value)| format!("-D{name}={value}"));
        [threads].into_iter().chain(others)
    }
}

/// Grid size: number of thread blocks in x and y.
pub type Blocks = [i64; 2];

/// A field of the structure that a kernel takes.
#[derive(Debug)]
pub enum Arg<'a> {
    /// A pointer to the data of a contiguous tensor on the kernels' device.
    Tensor(&'a Tensor),
    /// A null pointer.
    Null,
    /// An `int`.
    Int(i64),
    /// A `float`.
    Float(f64),
}

impl<'a> From<Option<&'a Tensor>> for Arg<'a> {
    fn from(tensor: Option<&'a Tensor>) -> Self {
        tensor.map_or(Arg::Null, Arg::Tensor)
    }
}

/// Device that runs kernels, in order with libtorch's work on its current stream.
pub trait KernelLauncher: Debug + Sync {
    /// Device of the tensors.
    fn device(&self) -> Device;

    /// Launches a kernel of `source`. The caller ensures that the tensors have the shapes and
    /// dtypes that it expects.
    ///
    /// # Errors
    /// Returns an error if the source does not compile, a tensor is on another device or not
    /// contiguous, or the driver refuses.
    fn launch(
        &self,
        source: &KernelSource,
        kernel: &'static str,
        blocks: Blocks,
        args: &[Arg],
    ) -> Result<(), Error>;
}

/// The arguments as a structure in C layout, with a size that is a multiple of 8.
fn layout(args: &[Arg], device: Device) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![];
    for arg in args {
        match arg {
            Arg::Tensor(t) => {
                let fits = t.device() == device && t.is_contiguous();
                let found = || format!("{:?} {:?} on {:?}", t.kind(), t.size(), t.device());
                if !fits {
                    return Err(Error::Argument { expected: device, found: found() });
                }
                append(&mut bytes, &(t.data_ptr() as usize).to_ne_bytes());
            }
            Arg::Null => append(&mut bytes, &0usize.to_ne_bytes()),
            Arg::Int(n) => {
                let n = i32::try_from(*n).map_err(|_| Error::Argument {
                    expected: device,
                    found: format!("{n}, beyond 32 bits"),
                })?;
                append(&mut bytes, &n.to_ne_bytes());
            }
            Arg::Float(x) => append(&mut bytes, &(*x as f32).to_ne_bytes()),
        }
    }
    bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
    Ok(bytes)
}

/// Appends a field, aligned to its size.
fn append(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.resize(bytes.len().next_multiple_of(field.len()), 0);
    bytes.extend_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_layout_of_a_c_structure() {
        let args = [Arg::Int(7), Arg::Null, Arg::Int(-1), Arg::Float(1.0), Arg::Int(5)];
        let bytes = layout(&args, Device::Cpu).unwrap();
        let words: Vec<i32> =
            bytes.chunks_exact(4).map(|w| i32::from_ne_bytes(w.try_into().unwrap())).collect();
        assert_eq!(words, [7, 0, 0, 0, -1, 1.0f32.to_bits() as i32, 5, 0]);
    }

    #[test]
    fn a_tensor_that_a_kernel_cannot_read_is_refused() {
        let t = Tensor::zeros([2, 3], (tch::Kind::Float, Device::Cpu));
        assert!(layout(&[Arg::Tensor(&t)], Device::Cpu).is_ok());
        let error = layout(&[Arg::Tensor(&t.tr())], Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("[3, 2]"), "{error}");
        assert!(layout(&[Arg::Tensor(&t)], Device::Cuda(0)).is_err());
    }
}
