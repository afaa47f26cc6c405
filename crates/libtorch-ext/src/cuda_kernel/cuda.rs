//! Kernel launches on a GPU.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::sync::Mutex;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use tch::Device;

use super::{Arg, Blocks, KernelLauncher, KernelSource, compile, compiler, layout};
use crate::Error;
use crate::cuda_graph::CudaGraphs;

/// Compiles sources at first use, and launches their kernels on libtorch's current stream of one
/// GPU.
pub struct CudaKernels {
    device: usize,
    graphs: CudaGraphs,
    context: sys::CUcontext,
    capability: (i32, i32),
    loaded: Mutex<HashMap<KernelSource, sys::CUmodule>>, // never unloaded
}

// SAFETY: contexts and modules are driver handles, which any thread may use.
unsafe impl Send for CudaKernels {}
// SAFETY: likewise, and the table of modules is locked.
unsafe impl Sync for CudaKernels {}

impl fmt::Debug for CudaKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaKernels").field("device", &self.device).finish_non_exhaustive()
    }
}

impl CudaKernels {
    fn open(device: usize) -> Result<Self, Error> {
        const DRIVER: &str = "libcuda.so.1";
        compiler::open()?; // a missing compiler is an error here rather than at the first launch
        let graphs = CudaGraphs::open(device)?;
        // SAFETY: queries the loader only.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::open(DRIVER, "not found"));
        }
        let ask = || {
            result::init()?;
            let handle = result::device::get(device as c_int)?;
            // SAFETY: a device that the driver has just returned. Its context is shared with
            // libtorch and never released.
            unsafe {
                use sys::CUdevice_attribute as Attribute;
                let number = |attribute| result::device::get_attribute(handle, attribute);
                let major = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
                let minor = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
                Ok((result::primary_ctx::retain(handle)?, (major, minor)))
            }
        };
        let (context, capability) = ask().map_err(|e| refused("driver", "open", e))?;
        Ok(CudaKernels { device, graphs, context, capability, loaded: Mutex::default() })
    }

    /// The process-wide launcher for the GPU `device`, opened at first use. libtorch's CUDA half
    /// must be open (see [`crate::runtime::load_cuda`]).
    ///
    /// # Errors
    /// Returns an error if there is no driver, no compiler or no such GPU, or the program was built
    /// without CUDA graphs, whose library also gives libtorch's current stream.
    pub fn shared(device: usize) -> Result<&'static Self, Error> {
        static OPENED: Mutex<BTreeMap<usize, &'static CudaKernels>> = Mutex::new(BTreeMap::new());
        let mut opened = OPENED.lock().expect("no holder panics");
        if let Some(&kernels) = opened.get(&device) {
            return Ok(kernels);
        }
        let kernels = &*Box::leak(Box::new(Self::open(device)?));
        opened.insert(device, kernels);
        Ok(kernels)
    }

    fn module(&self, source: &KernelSource) -> Result<sys::CUmodule, Error> {
        let mut loaded = self.loaded.lock().expect("no holder panics");
        if let Some(&module) = loaded.get(source) {
            return Ok(module);
        }
        let ptx = compile(source, self.capability)?;
        let image = ptx.as_bytes().expect("compiled sources are in memory");
        // SAFETY: the compiler's output, which ends with a zero.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) }
            .map_err(|e| refused(source.name, "load", e))?;
        loaded.insert(source.clone(), module);
        Ok(module)
    }
}

impl KernelLauncher for CudaKernels {
    fn device(&self) -> Device {
        Device::Cuda(self.device)
    }

    fn launch(
        &self,
        source: &KernelSource,
        kernel: &'static str,
        blocks: Blocks,
        args: &[Arg],
    ) -> Result<(), Error> {
        let mut argument = layout(args, self.device())?;
        let stream = self.graphs.current_stream()?;
        let size = |n: i64| u32::try_from(n).expect("grids are small and positive");
        let (blocks, threads) = ((size(blocks[0]), size(blocks[1]), 1), (size(source.threads), 1, 1));
        let refused = |e| refused(source.name, kernel, e);
        let _current = Current::enter(self.context).map_err(refused)?;
        let module = self.module(source)?;
        let name = CString::new(kernel).expect("kernels' names have no zero");
        // SAFETY: a loaded module; one structure in C layout, which the driver copies; memory of
        // live tensors, which libtorch reuses only for later work of the same stream.
        unsafe {
            let function = result::module::get_function(module, name).map_err(refused)?;
            let parameters = &mut [argument.as_mut_ptr().cast::<c_void>()];
            result::launch_kernel(function, blocks, threads, 0, stream.cast(), parameters).map_err(refused)
        }
    }
}

/// Keeps a context current on this thread until dropped.
struct Current;

impl Current {
    fn enter(context: sys::CUcontext) -> Result<Self, DriverError> {
        // SAFETY: a context that is never released.
        unsafe { sys::cuCtxPushCurrent_v2(context) }.result().map(|()| Current)
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        let mut context = std::ptr::null_mut();
        // SAFETY: pops the context pushed by `enter`.
        let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut context) };
    }
}

fn refused(source: &'static str, call: &'static str, error: DriverError) -> Error {
    Error::Kernel { file: source, call, message: format!("the CUDA driver returned {:?}", error.0) }
}
