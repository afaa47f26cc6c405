//! Kernels on the processor, for tests: the same source, compiled by the C++ compiler behind a header that stands in for
//! CUDA (`csrc/emulator.h`).

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};

use tch::Device;

use super::{Arg, Blocks, Launch, Program, layout};
use crate::Error;
use crate::library::{self, FromBytes};

const HEADER: &str = include_str!("../../csrc/emulator.h");

type Emulate = unsafe extern "C" fn(*const c_void, *const c_void, usize, u32, u32, u32) -> bool;

/// Runs kernels over tensors on the CPU, one thread after the other.
#[derive(Debug, Default)]
pub struct Emulated;

/// Programs of this process.
static BUILT: LazyLock<Mutex<HashMap<Program, Arc<Mutex<FromBytes>>>>> = LazyLock::new(Mutex::default);

fn failed(program: &Program, call: &'static str, message: impl ToString) -> Error {
    Error::Kernel { program: program.name, call, message: message.to_string() }
}

fn build(program: &Program) -> Result<FromBytes, Error> {
    let dir = tempfile::tempdir().map_err(|e| failed(program, "compile", e))?;
    let (source, library) = (dir.path().join("kernels.cpp"), dir.path().join("kernels.so"));
    std::fs::write(&source, [HEADER, program.source].concat()).map_err(|e| failed(program, "compile", e))?;
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let output = Command::new(compiler)
        // Without `-fno-gnu-unique` shared memory of a template's would be one for all libraries that have the template.
        .args(["-std=c++17", "-O2", "-w", "-shared", "-fPIC", "-fno-gnu-unique", "-o"])
        .args([&library, &source])
        .args(program.options())
        .output()
        .map_err(|e| failed(program, "compile", e))?;
    if !output.status.success() {
        return Err(failed(program, "compile", String::from_utf8_lossy(&output.stderr)));
    }
    let bytes = std::fs::read(&library).map_err(|e| failed(program, "compile", e))?;
    // SAFETY: just compiled; nothing runs when it is opened.
    unsafe { library::from_bytes(program.name, &bytes) }.map_err(|e| failed(program, "open", e))
}

fn find(program: &Program) -> Result<Arc<Mutex<FromBytes>>, Error> {
    let mut all = BUILT.lock().expect("no holder panics");
    if let Some(built) = all.get(program) {
        return Ok(built.clone());
    }
    let built = Arc::new(Mutex::new(build(program)?));
    all.insert(program.clone(), built.clone());
    Ok(built)
}

impl Launch for Emulated {
    fn device(&self) -> Device {
        Device::Cpu
    }

    fn launch(
        &self,
        program: &Program,
        kernel: &'static str,
        blocks: Blocks,
        args: &[Arg],
    ) -> Result<(), Error> {
        let argument = layout(args, Device::Cpu)?;
        let built = find(program)?;
        let library = built.lock().expect("no holder panics");
        let size = |n: i64| u32::try_from(n).expect("grids are small and positive");
        let name = CString::new(kernel).expect("kernels' names have no zero");
        // SAFETY: the functions are those of the emulator and of the source; the structure is laid out as C does; the
        // tensors live, and the lock keeps a second launch from the library's variables.
        let ended = unsafe {
            let missing = |e| failed(program, kernel, e);
            let emulate = library.get::<Emulate>(b"gen_emulate").map_err(missing)?;
            let function = library.get::<*const c_void>(name.as_bytes_with_nul()).map_err(missing)?;
            let [x, y] = blocks.map(size);
            emulate(*function, argument.as_ptr().cast(), argument.len(), x, y, size(program.threads))
        };
        if ended { Ok(()) } else { Err(failed(program, kernel, "its threads wait for each other")) }
    }
}
