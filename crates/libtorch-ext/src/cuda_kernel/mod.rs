//! CUDA kernels of one's own: source text, compiled when it is first needed for the GPU at hand, launched on libtorch's
//! current stream over tensors' memory.
//!
//! tch binds nothing of the kind. The compiler is NVRTC, which comes with libtorch's CUDA libraries, so that a program
//! is built without any of CUDA. Tests run the same source on the processor (`Emulated`, feature `testing`).

mod compiler;
mod cuda;
#[cfg(feature = "testing")]
mod emulated;

use std::fmt::Debug;
use std::hash::{Hash, Hasher};

use tch::{Device, Tensor};

use crate::Error;

pub use compiler::{compile, compiler_is_present};
pub use cuda::CudaKernels;
#[cfg(feature = "testing")]
pub use emulated::Emulated;

/// A source and what it is compiled for.
#[derive(Debug, Clone)]
pub struct Program {
    /// Tells sources apart, and names them in messages.
    pub name: &'static str,
    /// CUDA C++ without includes. Its kernels are `extern "C"` and take one structure.
    pub source: &'static str,
    /// Threads of a block, the macro `THREADS` of the source.
    pub threads: i64,
    /// Further macros and their values.
    pub defines: Vec<(&'static str, String)>,
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        (self.name, &self.defines) == (other.name, &other.defines)
    }
}

impl Eq for Program {}

impl Hash for Program {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.name, &self.defines).hash(state);
    }
}

impl Program {
    /// `-DNAME=VALUE` for each macro.
    fn options(&self) -> impl Iterator<Item = String> {
        let threads = format!("-DTHREADS={}", self.threads);
        let others = self.defines.iter().map(|(name, value)| format!("-D{name}={value}"));
        [threads].into_iter().chain(others)
    }
}

/// Blocks of threads in x and y.
pub type Blocks = [i64; 2];

/// A field of the structure that a kernel takes.
#[derive(Debug)]
pub enum Arg<'a> {
    /// A pointer to a tensor's numbers, which lie contiguously on the kernels' device.
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

/// What runs kernels. Results are there for whatever libtorch does next on its current stream.
pub trait Launch: Debug + Sync {
    /// Where tensors must lie.
    fn device(&self) -> Device;

    /// Runs a kernel of a program over tensors whose shapes and kinds are those that it expects.
    ///
    /// # Errors
    /// The program does not compile, a tensor lies elsewhere, or the driver refuses.
    fn launch(
        &self,
        program: &Program,
        kernel: &'static str,
        blocks: Blocks,
        args: &[Arg],
    ) -> Result<(), Error>;
}

/// The fields as C lays out a structure of them; its size is a multiple of 8.
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
    fn fields_lie_as_in_a_structure_of_c() {
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
