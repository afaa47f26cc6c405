//! What can go wrong below tch.

use std::ffi::{CStr, c_char};

/// Errors of the run-time libraries.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A shared library cannot be opened.
    #[error("cannot open `{library}`: {message}")]
    Open {
        /// Its name, as the loader looks it up.
        library: &'static str,
        /// The loader's own words.
        message: String,
    },
    /// The CUDA driver answered with an error code.
    #[error("the CUDA driver refuses `{call}` with code {code}")]
    Driver {
        /// The function called.
        call: &'static str,
        /// Its `CUresult`.
        code: i32,
    },
    /// The program was built where headers of CUDA were missing.
    #[error("this program was built without CUDA graphs")]
    NotBuilt,
    /// A CUDA kernel of one's own could not be compiled or run.
    #[error("CUDA kernels `{program}`, {call}: {message}")]
    Kernel {
        /// The source.
        program: &'static str,
        /// The kernel, or what else was asked.
        call: &'static str,
        /// The compiler's or the driver's own words.
        message: String,
    },
    /// A CUDA kernel cannot take an argument.
    #[error("a CUDA kernel takes contiguous tensors on {expected:?} and numbers of 32 bits, not {found}")]
    Argument {
        /// Where the kernel runs.
        expected: tch::Device,
        /// The argument.
        found: String,
    },
    /// libtorch refused something else.
    #[error("libtorch, {call}: {message}")]
    Libtorch {
        /// What was asked of it.
        call: &'static str,
        /// Its own words.
        message: String,
    },
    /// libtorch could not do something with a CUDA graph.
    #[error("CUDA graph, {call}: {message}")]
    Graph {
        /// What was asked of it.
        call: &'static str,
        /// Its own words.
        message: String,
    },
}

impl Error {
    /// The loader starts its message with the name of the library that it could not find; once is enough.
    pub(crate) fn open(library: &'static str, message: &str) -> Self {
        let own = message.strip_prefix(library).and_then(|m| m.strip_prefix(": "));
        Error::Open { library, message: own.unwrap_or(message).to_owned() }
    }
}

unsafe extern "C" {
    fn ext_free(text: *mut c_char);
}

/// The words of an error that a function of this crate's C++ gave back; null is none.
pub(crate) fn words(error: *mut c_char) -> Result<(), String> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a text that the other side made and that is ours to give back.
    Err(unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        ext_free(error);
        text
    })
}
