//! Manifest of a saved state, `step-N.json`: its files with their lengths and hashes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A state in one file, and one in a file for each process.
const FORMATS: [&str; 2] = ["gen-training-state-2", "gen-training-state-3"];

/// Contents of `step-N.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: String,
    /// The last finished step.
    pub step: u64,
    /// Whether the state is never removed.
    pub milestone: bool,
    /// Files of the state.
    pub files: Vec<FileEntry>,
}

/// One file of a state.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEntry {
    /// Name in the folder of states.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// SHA-256 of the content, hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// Manifest of a state in these files.
    pub fn new(step: u64, milestone: bool, files: Vec<FileEntry>) -> Self {
        let format = FORMATS[usize::from(files.len() > 1)].to_owned();
        Manifest { format, step, milestone, files }
    }

    /// Path of the manifest of a step.
    pub fn path(dir: &Path, step: u64) -> PathBuf {
        dir.join(format!("step-{step:09}.json"))
    }

    /// Manifests in a folder by step; zero-padded, their names sort as numbers.
    pub fn list(dir: &Path) -> Result<Vec<PathBuf>> {
        files_ending(dir, "json")
    }

    /// Reads and checks a manifest.
    pub fn read(path: &Path) -> Result<Manifest> {
        let bad = |message: String| Error::State { path: path.to_owned(), message };
        let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|e| bad(format!("it is damaged: {e}")))?;
        if !FORMATS.contains(&manifest.format.as_str()) || manifest.files.is_empty() {
            let expected = FORMATS.join(" or ");
            return Err(bad(format!("expected a file of format {expected}, found {}", manifest.format)));
        }
        Ok(manifest)
    }

    /// Compares every file with its entry.
    pub fn verify(&self, dir: &Path) -> Result<()> {
        self.files.iter().try_for_each(|file| file.verify(dir))
    }
}

impl FileEntry {
    /// Compares the file with this entry.
    pub fn verify(&self, dir: &Path) -> Result<()> {
        let FileEntry { name, bytes, sha256 } = self;
        let path = dir.join(name);
        let bad = |message: String| Error::State { path: path.clone(), message };
        let found = std::fs::metadata(&path).map_err(Error::file("read", &path))?.len();
        if found != *bytes {
            return Err(bad(format!("it is damaged: expected {bytes} bytes, found {found}")));
        }
        let found = backbones::files::sha256(&path)?;
        if found != *sha256 {
            return Err(bad(format!("it is damaged: expected SHA-256 {sha256}, found {found}")));
        }
        Ok(())
    }
}

/// Files with an extension, sorted by name; none in a missing folder.
pub(crate) fn files_ending(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(vec![]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::file("read", dir))? {
        let path = entry.map_err(Error::file("read", dir))?.path();
        if path.extension().is_some_and(|e| e == extension) {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}
