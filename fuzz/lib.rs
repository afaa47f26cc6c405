//! Readers shared by the targets; each takes bytes as a file.

#[path = "../examples/fuzz/readers.rs"]
mod readers;

/// Runs a reader on bytes.
pub fn read(name: &str, bytes: &[u8]) {
    let reader = readers::READERS.iter().find(|r| r.name == name).expect("a reader of this name");
    let dir = tempfile::tempdir().expect("a folder for the input");
    let path = dir.path().join(reader.file);
    std::fs::write(&path, bytes).expect("the input can be written");
    (reader.read)(&path);
}
