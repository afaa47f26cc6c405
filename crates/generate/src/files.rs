//! [`base::files`] with this crate's errors.

use std::io::Write as _;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// A temporary file beside `target`; it vanishes unless [`publish`]ed.
pub fn temporary_for(target: &Path) -> Result<NamedTempFile> {
    base::files::temporary_for(target).map_err(Error::write(target))
}

/// Gives a complete temporary file its name.
pub fn publish(file: NamedTempFile, target: &Path) -> Result<()> {
    base::files::publish(file, target).map_err(Error::write(target))
}

/// Writes a whole file.
pub fn write(target: &Path, bytes: &[u8]) -> Result<()> {
    base::files::write_atomic(target, |file| file.write_all(bytes)).map_err(Error::write(target))
}

/// Makes a folder, and those it is in, where they are missing.
pub fn make_folder(folder: &Path) -> Result<()> {
    let what = || format!("cannot make the folder `{}`", folder.display());
    std::fs::create_dir_all(folder).map_err(Error::io(what))
}
