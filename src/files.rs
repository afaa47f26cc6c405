//! Writes files so that a reader finds the old one or the new one, never a partial one:
//! [`base::files`] with errors that name the file.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

/// A temporary file beside `target`; it vanishes unless [`publish`]ed.
pub fn temporary_for(target: &Path) -> Result<NamedTempFile> {
    base::files::temporary_for(target).with_context(cannot_write(target))
}

/// Gives a complete temporary file its name.
pub fn publish(file: NamedTempFile, target: &Path) -> Result<()> {
    base::files::publish(file, target).with_context(cannot_write(target))
}

/// Writes a whole file.
pub fn write(target: &Path, bytes: &[u8]) -> Result<()> {
    base::files::write_atomic(target, |file| file.write_all(bytes)).with_context(cannot_write(target))
}

/// Makes a folder, and those it is in, where they are missing.
pub fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))
}

fn cannot_write(target: &Path) -> impl Fn() -> String + '_ {
    move || format!("cannot write `{}`", target.display())
}
