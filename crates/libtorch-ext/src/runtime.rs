//! libtorch at run time: its CUDA half, opened on request, its version, and the C library's
//! allocator.

use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::Error;

const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// Opens libtorch's CUDA half once, and keeps it open.
///
/// Programs link only the CPU half, so that one binary serves machines with and without CUDA. Call
/// this before the first tensor is created: libtorch looks up its CUDA hooks at first use and
/// caches the result. The loader searches the program's run path and `LD_LIBRARY_PATH`.
///
/// # Errors
/// Returns an error if the library cannot be opened.
pub fn load_cuda() -> Result<(), Error> {
    static OPENED: OnceLock<Result<Library, String>> = OnceLock::new();
    let opened = OPENED.get_or_init(|| {
        // SAFETY: libtorch_cuda's initialisers only register its kernels with the libtorch already
        // loaded.
        unsafe { Library::open(Some(CUDA_LIBRARY), RTLD_NOW | RTLD_GLOBAL) }.map_err(|e| e.to_string())
    });
    match opened {
        Ok(_) => Ok(()),
        Err(message) => Err(Error::open(CUDA_LIBRARY, message)),
    }
}

/// Makes the C library keep freed memory instead of returning it to the system, which would hand it
/// out again page by page, zeroed: training allocates the same sizes in every step. Threads share
/// one arena, since blocks of others are limited to 64 MiB. Has an effect with glibc only.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        use std::ffi::c_int;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        const TRIM_THRESHOLD: c_int = -1;
        const TOP_PAD: c_int = -2;
        const MMAP_MAX: c_int = -4;
        const ARENA_MAX: c_int = -8;
        let kept = [(TRIM_THRESHOLD, c_int::MAX), (TOP_PAD, 64 << 20), (MMAP_MAX, 0), (ARENA_MAX, 1)];
        for (parameter, value) in kept {
            // SAFETY: glibc's documented interface; an unknown parameter is reported by the result.
            let _ = unsafe { mallopt(parameter, value) };
        }
    }
}

/// Version of the libtorch in use, such as `2.11.0`, which may differ from the one compiled
/// against.
///
/// # Errors
/// Returns an error if libtorch does not export its version.
pub fn libtorch_version() -> Result<String, Error> {
    const SYMBOL: &str = "aoti_torch_abi_version";
    let missing = |e: libloading::Error| Error::open("libtorch_cpu.so", &e.to_string());
    // SAFETY: libtorch exports `uint64_t aoti_torch_abi_version()` from its C shim (major, minor
    // and patch in the three highest bytes).
    let packed = unsafe {
        let this = Library::this();
        let version = this.get::<unsafe extern "C" fn() -> u64>(SYMBOL.as_bytes()).map_err(missing)?;
        version()
    };
    Ok(format!("{}.{}.{}", packed >> 56, packed >> 48 & 0xFF, packed >> 40 & 0xFF))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_the_one_tch_was_made_for() {
        // Creates a tensor so that the linker keeps libtorch.
        assert_eq!(tch::Tensor::from_slice(&[1i64, 2]).sum(tch::Kind::Int64).int64_value(&[]), 3);
        assert!(super::libtorch_version().unwrap().starts_with("2.11."));
    }
}
