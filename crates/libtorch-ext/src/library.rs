//! Shared libraries embedded in the program.

use std::fs::File;
use std::io::Write;
use std::ops::Deref;
use std::os::fd::AsRawFd;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rustix::fs::{MemfdFlags, memfd_create};

/// An open library and its file in memory. If the file were closed, the loader would mistake the
/// next one with its descriptor for the same library.
pub(crate) struct FromBytes {
    library: Library,
    _file: File,
}

impl Deref for FromBytes {
    type Target = Library;

    fn deref(&self) -> &Library {
        &self.library
    }
}

/// Opens a library from an anonymous file, since a folder for temporary files may forbid execution.
///
/// # Safety
/// Its initialisers run.
pub(crate) unsafe fn from_bytes(name: &str, bytes: &[u8]) -> Result<FromBytes, String> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC).map(File::from).map_err(|e| e.to_string())?;
    (&file).write_all(bytes).map_err(|e| e.to_string())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the caller vouches for the initialisers.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|e| e.to_string())?;
    Ok(FromBytes { library, _file: file })
}
