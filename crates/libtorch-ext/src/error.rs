//! Errors below tch.

use std::ffi::{CStr, c_char};

/// Errors of the run-time libraries.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A shared library cannot be opened.
    #[error("cannot open `{library}`: {message}")]
    Open {
        /// Name of the library.
        library: &'static str,
        /// The loader's message.
        message: String,
    },
    /// The CUDA driver answered with an error code.
    #[error("the CUDA driver refused `{call}` with code {code}")]
    Driver {
        /// The function called.
        call: &'static str,
        /// Its `CUresult`.
        code: i32,
    },
    /// The program was built without CUDA's headers.
    #[error("this program was built without CUDA graphs")]
    NotBuilt,
    /// A custom CUDA kernel could not be compiled or launched.
    #[error("CUDA kernels `{file}`, {call}: {message}")]
    Kernel {
        /// Name of the source file.
        file: &'static str,
        /// The kernel, or the step that failed.
        call: &'static str,
        /// The compiler's or the driver's message.
        message: String,
    },
    /// A CUDA kernel cannot take an argument.
    #[error("a CUDA kernel takes contiguous tensors on {expected:?} and 32-bit numbers, found {found}")]
    Argument {
        /// Device of the kernel.
        expected: tch::Device,
        /// The argument.
        found: String,
    },
    /// Another call of libtorch failed.
    #[error("libtorch, {call}: {message}")]
    Libtorch {
        /// The call.
        call: &'static str,
        /// libtorch's message.
        message: String,
    },
    /// A call for a CUDA graph failed.
    #[error("CUDA graph, {call}: {message}")]
    Graph {
        /// The call.
        call: &'static str,
        /// libtorch's message.
        message: String,
    },
}

impl Error {
    /// [`Error::Open`], without the library's name at the start of the loader's message.
    pub(crate) fn open(library: &'static str, message: &str) -> Self {
        let own = message.strip_prefix(library).and_then(|m| m.strip_prefix(": "));
        Error::Open { library, message: own.unwrap_or(message).to_owned() }
    }
}

unsafe extern "C" {
    fn ext_free(text: *mut c_char);
}

/// Converts the error message of this crate's C++ functions; null means success.
pub(crate) fn check_message(error: *mut c_char) -> Result<(), String> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a string allocated by the C++ side, which we own and free.
    Err(unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        ext_free(error);
        text
    })
}
