//! Many texts in a safetensors file: their bytes one after the other, and where each ends.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use safetensors::tensor::Metadata;

use crate::{Error, Result};

/// The length of a safetensors file's head, and what it says.
pub(crate) fn read_header(file: &File, path: &Path) -> Result<(u64, Metadata)> {
    let bad = |e: String| Error::malformed(path, format!("not a safetensors file: {e}"));
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).map_err(|e| bad(e.to_string()))?;
    let length = u64::from_le_bytes(length);
    let size = file.metadata().map_err(Error::read(path))?.len();
    if length > size {
        return Err(bad(format!("its header claims {length} bytes, the file has {size}")));
    }
    let mut head = vec![0; length as usize];
    file.read_exact_at(&mut head, 8).map_err(|e| bad(e.to_string()))?;
    let meta = serde_json::from_slice(&head).map_err(|e| bad(e.to_string()))?;
    Ok((8 + length, meta))
}

/// Where texts lie in a file.
#[derive(Debug)]
pub(crate) struct Texts {
    at: u64,
    ends: Vec<i64>,
}

impl Texts {
    /// `bytes` of texts at `at`, `count` ends (i64) at `ends_at`.
    pub fn read(file: &File, path: &Path, at: u64, bytes: usize, ends_at: u64, count: usize) -> Result<Self> {
        let ends = read_i64(file, path, ends_at, count)?;
        let rising = ends.iter().scan(0, |last, &end| Some(end >= std::mem::replace(last, end))).all(|ok| ok);
        if !rising || ends.last().copied().unwrap_or(0) != bytes as i64 {
            return Err(Error::malformed(path, "the ends of its texts do not rise to their length"));
        }
        Ok(Texts { at, ends })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// One of them.
    pub fn get(&self, file: &File, path: &Path, index: usize) -> Result<String> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        let mut bytes = vec![0; (self.ends[index] - start) as usize];
        file.read_exact_at(&mut bytes, self.at + start as u64).map_err(Error::read(path))?;
        String::from_utf8(bytes).map_err(|_| Error::malformed(path, format!("text {index} is not UTF-8")))
    }
}

/// `count` little-endian numbers.
pub(crate) fn read_i64(file: &File, path: &Path, at: u64, count: usize) -> Result<Vec<i64>> {
    let mut bytes = vec![0; count * 8];
    file.read_exact_at(&mut bytes, at).map_err(Error::read(path))?;
    Ok(bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes"))).collect())
}
