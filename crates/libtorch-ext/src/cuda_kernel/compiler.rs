//! NVRTC, the run-time compiler, opened at first use.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::nvrtc::{self, CompileError, CompileOptions, Ptx};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::KernelSource;
use crate::Error;

const LIBRARY: &str = "libnvrtc.so.13";
/// The compiler opens it by name, but does not search its own folder.
const BUILTINS: &str = "libnvrtc-builtins.so";

/// Compiles for GPUs of this compute capability, such as `(9, 0)`. Needs no GPU.
///
/// # Errors
/// Returns an error if there is no compiler, or it rejects the source.
pub fn compile(source: &KernelSource, capability: (i32, i32)) -> Result<Ptx, Error> {
    open()?;
    let (major, minor) = capability;
    let mut options = vec![format!("--gpu-architecture=compute_{major}{minor}"), "--std=c++17".to_owned()];
    options.extend(source.options());
    let options = CompileOptions { options, name: Some(source.name.to_owned()), ..Default::default() };
    nvrtc::compile_ptx_with_opts(source.text, options).map_err(|e| {
        let message = match &e {
            CompileError::CompileError { log, .. } => log.to_string_lossy().into_owned(),
            _ => e.to_string(),
        };
        Error::Kernel { file: source.name, call: "compile", message }
    })
}

/// Whether the compiler is installed.
pub fn compiler_is_present() -> bool {
    open().is_ok()
}

/// Opens the compiler once, from the CUDA libraries next to libtorch if it is there, else by the
/// loader. Later calls find it by name.
pub(super) fn open() -> Result<(), Error> {
    static OPENED: OnceLock<Result<Vec<Library>, String>> = OnceLock::new();
    let open = |path: &Path| {
        // SAFETY: the compiler's initialisers have no preconditions.
        unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|e| e.to_string())
    };
    let opened = OPENED.get_or_init(|| {
        let Some(dir) = beside_libtorch() else { return open(Path::new(LIBRARY)).map(|l| vec![l]) };
        let files = std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let builtins =
            files.filter(|p| p.file_name().is_some_and(|name| name.to_string_lossy().starts_with(BUILTINS)));
        builtins.chain([dir.join(LIBRARY)]).map(|path| open(&path)).collect()
    });
    opened.as_ref().map(drop).map_err(|message| Error::open(LIBRARY, message))
}

/// Folder of CUDA's libraries next to a libtorch from PyPI, if the compiler is in it.
fn beside_libtorch() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let library = maps.lines().find_map(|l| l.ends_with("/libtorch_cpu.so").then(|| l.split_once('/'))?)?.1;
    let dir = Path::new("/").join(library).parent()?.join("../../nvidia/cu13/lib");
    dir.join(LIBRARY).is_file().then_some(dir)
}
