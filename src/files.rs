//! Writing files so that a reader finds the old one or the new one, never half of one.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

/// The folder that a file of this path is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A temporary file beside `target`, with the rights of an ordinary new file; it vanishes unless [`publish`]ed.
pub fn temporary_for(target: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
    builder.prefix(".gen-").tempfile_in(folder_of(target)).map_err(|e| cannot_write(target, e))
}

/// Gives a complete temporary file its name.
pub fn publish(file: NamedTempFile, target: &Path) -> Result<()> {
    file.as_file().sync_all().map_err(|e| cannot_write(target, e))?;
    file.persist(target).map_err(|e| cannot_write(target, e.error))?;
    Ok(())
}

/// Writes a whole file.
pub fn write(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = temporary_for(target)?;
    file.write_all(bytes).map_err(|e| cannot_write(target, e))?;
    publish(file, target)
}

/// Makes a folder, and those it is in, where they are missing.
pub fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))
}

fn cannot_write(target: &Path, error: std::io::Error) -> anyhow::Error {
    // `tempfile` appends its temporary name, which is of no interest to a reader.
    let text = error.to_string();
    let plain = match text.split_once(" at path \"") {
        Some((what, _)) => std::io::Error::new(error.kind(), what.to_owned()),
        None => error,
    };
    anyhow::Error::new(plain).context(format!("cannot write `{}`", target.display()))
}
