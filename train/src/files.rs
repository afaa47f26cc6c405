//! Small files of a run's directory, written atomically.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::{Error, Result};

/// Writes a file under a temporary name and renames it.
///
/// # Errors
/// Returns an error that names the file if it cannot be written; an existing file keeps its
/// content.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    base::files::write_atomic(path, |file| file.write_all(bytes)).map_err(Error::file("write", path))
}

/// Indented JSON of plain data.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("plain structs become JSON")
}
