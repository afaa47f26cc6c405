//! Files: written so that a reader never meets half of one, opened without waiting for a pipe,
//! named as text.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::Serialize;
use tempfile::NamedTempFile;

/// The folder that a file of this path is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens a regular file to read it. Others are refused at once: a pipe would be waited for, a
/// device might never end.
///
/// # Errors
/// Returns an error if the file is missing, may not be read, or is a folder, pipe, socket or
/// device.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Before opening, which alone can hang; and after it, since the name may mean something else by
    // then.
    let refuse = |kind: std::fs::FileType| match kind.is_dir() {
        true => io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"),
        false => io::Error::new(io::ErrorKind::InvalidInput, NOT_REGULAR),
    };
    let regular = |metadata: std::fs::Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(refuse(metadata.file_type())),
    };
    regular(std::fs::metadata(path)?)?;
    let file = File::open(path)?;
    regular(file.metadata()?)?;
    Ok(file)
}

/// Reason why a pipe, socket or device is not read.
pub const NOT_REGULAR: &str = "not a regular file but a pipe, socket or device";

/// A file's name as text that no other name has: bytes that are not UTF-8 are written `\xB9`.
pub fn name_of(name: &OsStr) -> String {
    let escape = |bytes: &[u8]| bytes.iter().map(|b| format!("\\x{b:02X}")).collect::<String>();
    let chunks = name.as_bytes().utf8_chunks();
    chunks.map(|c| format!("{}{}", c.valid(), escape(c.invalid()))).collect()
}

/// Text as a cell of a TSV file: one line, without tabs.
pub fn tsv_cell(text: &str) -> String {
    text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r")
}

/// Prefix of the names of unfinished files.
const PARTIAL: &str = ".partial-";

/// A temporary file beside `path`, with the rights of an ordinary new file; it vanishes unless
/// [`publish`]ed.
pub fn temporary_for(path: &Path) -> io::Result<NamedTempFile> {
    // Without this the file would keep a temporary file's mode, readable by its owner only.
    let usual = Permissions::from_mode(0o666);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PARTIAL).permissions(usual).tempfile_in(folder_of(path)).map_err(without_name)
}

/// Removes temporary files that a killed process left in `folder`; nobody else may be writing
/// there.
pub fn remove_stale_temps(folder: &Path) -> io::Result<()> {
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

/// Writes a file under a temporary name in the same folder, flushes it to the disk, and renames it.
/// If anything fails, nothing is left behind and an existing file keeps its content.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut temporary = temporary_for(path)?;
    write(temporary.as_file_mut())?;
    publish(temporary, path)
}

/// Writes a value as indented JSON, whole or not at all.
///
/// # Errors
/// Returns an error if the file cannot be written, or the value is not JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    write_atomic(path, |file| writeln!(file, "{text}"))
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

    #[test]
    fn names_that_are_not_utf8_stay_different_and_cells_stay_one_line() {
        let name = |bytes: &[u8]| name_of(OsStr::from_bytes(bytes));
        assert_eq!(name("Ümläut.png".as_bytes()), "Ümläut.png");
        assert_eq!(
            (name(b"\xb9\xb7"), name(b"a\xc4\xf1.png")),
            ("\\xB9\\xB7".into(), "a\\xC4\\xF1.png".into())
        );
        assert_eq!(tsv_cell("a\nb\tc"), "a\\nb\\tc");
    }

    #[test]
    fn a_device_is_refused_and_not_waited_for() {
        let refused = open_regular(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(refused.to_string(), NOT_REGULAR);
        assert_eq!(open_regular(Path::new("/tmp")).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }
}
