//! Small files of a run's directory, written whole or not at all.

use std::io::Write;
use std::path::Path;

use crate::{Error, Result};

/// Writes a file under a temporary name and renames it.
///
/// # Errors
/// Returns an error that names the file if it cannot be written; a file that was there keeps its content.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    base::files::write_atomic(path, |file| file.write_all(bytes)).map_err(Error::file("write", path))
}
