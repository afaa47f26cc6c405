//! Writing files so that a reader never meets half of one.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// The folder that a file of this path is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// How the names of unfinished files begin.
const PARTIAL: &str = ".partial-";

/// A temporary file beside `path`, with the rights of an ordinary new file; it vanishes unless [`publish`]ed.
pub fn temporary_for(path: &Path) -> io::Result<NamedTempFile> {
    // Without this the file would keep a temporary file's mode, readable by its owner only.
    let usual = Permissions::from_mode(0o666);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PARTIAL).permissions(usual).tempfile_in(folder_of(path)).map_err(without_name)
}

/// Removes temporary files that a killed process left in `folder`; nobody else may be writing there.
pub fn sweep(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Flushes a complete temporary file to the disk and gives it its name.
pub fn publish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(folder_of(path))?.sync_all() // the name itself
}

/// Writes a file under a temporary name in the same folder, flushes it to the disk, and renames it. If anything
/// fails, nothing is left behind and an existing file keeps its content.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut temporary = temporary_for(path)?;
    write(temporary.as_file_mut())?;
    publish(temporary, path)
}

/// `tempfile` adds the temporary name to its errors, which is of no interest to a reader.
fn without_name(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((cause, _)) => io::Error::new(error.kind(), cause.to_owned()),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, |f| f.write_all(b"old")).unwrap();
        let half = |f: &mut File| {
            f.write_all(b"ne")?;
            Err(io::Error::other("disk full"))
        };
        assert!(write_atomic(&path, half).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o044, 0o044);
    }

    #[test]
    fn errors_do_not_speak_of_temporary_files() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_atomic(&dir.path().join("no/such.txt"), |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!error.to_string().contains("partial"), "{error}");
    }
}
