//! Kernels on the CPU, for tests: the same source, compiled by the C++ compiler after a header that
//! emulates CUDA (`csrc/emulator.h`).

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};

use tch::Device;

use super::{Arg, Blocks, KernelLauncher, KernelSource, layout};
use crate::Error;
use crate::library::{self, FromBytes};

const HEADER: &str = include_str!("../../csrc/emulator.h");

type Emulate = unsafe extern "C" fn(*const c_void, *const c_void, usize, u32, u32, u32) -> bool;

/// Runs kernels on the CPU's tensors, one thread at a time.
#[derive(Debug, Default)]
pub struct CpuEmulator;

/// Sources compiled by this process.
static BUILT: LazyLock<Mutex<HashMap<KernelSource, Arc<Mutex<FromBytes>>>>> = LazyLock::new(Mutex::default);

fn failed(source: &KernelSource, call: &'static str, message: impl ToString) -> Error {
    Error::Kernel { file: source.name, call, message: message.to_string() }
}

fn build(source: &KernelSource) -> Result<FromBytes, Error> {
    let dir = tempfile::tempdir().map_err(|e| failed(source, "compile", e))?;
    let (file, library) = (dir.path().join("kernels.cpp"), dir.path().join("kernels.so"));
    std::fs::write(&file, [HEADER, source.text].concat()).map_err(|e| failed(source, "compile", e))?;
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let output = Command::new(compiler)
        // Without `-fno-gnu-unique` all libraries with a template would share its shared memory.
        .args(["-std=c++17", "-O2", "-w", "-shared", "-fPIC", "-fno-gnu-unique", "-o"])
        .args([&library, &file])
        .args(source.options())
        .output()
        .map_err(|e| failed(source, "compile", e))?;
    if !output.status.success() {
        return Err(failed(source, "compile", String::from_utf8_lossy(&output.stderr)));
    }
    let bytes = std::fs::read(&library).map_err(|e| failed(source, "compile", e))?;
    // SAFETY: just compiled; it has no initialisers.
    unsafe { library::from_bytes(source.name, &bytes) }.map_err(|e| failed(source, "open", e))
}

fn find(source: &KernelSource) -> Result<Arc<Mutex<FromBytes>>, Error> {
    let mut all = BUILT.lock().expect("no holder panics");
    if let Some(built) = all.get(source) {
        return Ok(built.clone());
    }
    let built = Arc::new(Mutex::new(build(source)?));
    all.insert(source.clone(), built.clone());
    Ok(built)
}

impl KernelLauncher for CpuEmulator {
    fn device(&self) -> Device {
        Device::Cpu
    }

    fn launch(
        &self,
        source: &KernelSource,
        kernel: &'static str,
        blocks: Blocks,
        args: &[Arg],
    ) -> Result<(), Error> {
        let argument = layout(args, Device::Cpu)?;
        let built = find(source)?;
        let library = built.lock().expect("no holder panics");
        let size = |n: i64| u32::try_from(n).expect("grids are small and positive");
        let name = CString::new(kernel).expect("kernels' names have no zero");
        // SAFETY: the functions are those of the emulator and of the source; the structure has C
        // layout; the tensors are live, and the lock protects the library's variables from a second
        // launch.
        let ended = unsafe {
            let missing = |e| failed(source, kernel, e);
            let emulate = library.get::<Emulate>(b"gen_emulate").map_err(missing)?;
            let function = library.get::<*const c_void>(name.as_bytes_with_nul()).map_err(missing)?;
            let [x, y] = blocks.map(size);
            emulate(*function, argument.as_ptr().cast(), argument.len(), x, y, size(source.threads))
        };
        if ended { Ok(()) } else { Err(failed(source, kernel, "deadlock: its threads wait for each other")) }
    }
}
