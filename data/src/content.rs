//! Quick hash of a data set's contents, which ties results to these images.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use base::hash::Sha256;
use rayon::prelude::*;

use crate::{Dataset, fingerprint};

/// Files up to this size are read whole.
const SMALL: u64 = 1 << 18;
/// Places of a larger file that are looked at, and bytes of each.
const PLACES: u64 = 16;
const PIECE: u64 = 1 << 12;

/// Hex hash (16 digits) of all keys, labels, classes and files: other images under the same names
/// have another one, which [`fingerprint`] does not detect.
pub fn content_fingerprint(dataset: &dyn Dataset) -> String {
    let mut hash = Sha256::default();
    hash.update(fingerprint(dataset));
    for class in dataset.classes() {
        hash.update(format!("{} {} {}\n", class.index, class.wnid, class.name));
    }
    let stamps: Vec<[u8; 32]> = dataset.files().par_iter().map(|file| stamp(file)).collect();
    stamps.iter().for_each(|stamp| hash.update(stamp));
    hash.fingerprint()
}

/// A hash of a file: of all its bytes, or of a large one's length, time of change and bytes here
/// and there. What cannot be read has a hash of its own.
fn stamp(path: &Path) -> [u8; 32] {
    let mut hash = Sha256::default();
    if read(path, &mut hash).is_err() {
        hash.update("cannot be read");
    }
    hash.digest()
}

fn read(path: &Path, hash: &mut Sha256) -> io::Result<()> {
    let about = std::fs::metadata(path)?;
    if !about.is_file() {
        return Err(io::ErrorKind::InvalidInput.into()); // opening a pipe would wait for its writer
    }
    let file = File::open(path)?;
    let length = about.len();
    hash.update(length.to_le_bytes());
    let mut piece = |from: u64, bytes: u64| -> io::Result<()> {
        let mut buffer = vec![0; bytes as usize];
        file.read_exact_at(&mut buffer, from)?;
        hash.update(buffer);
        Ok(())
    };
    if length <= SMALL {
        return piece(0, length);
    }
    (0..PLACES).try_for_each(|i| piece((length - PIECE) / (PLACES - 1) * i, PIECE))?;
    hash.update(about.mtime().to_le_bytes());
    hash.update(about.mtime_nsec().to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_content_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            stamp(&path)
        };
        let bytes = vec![7; 1000];
        let mut other = bytes.clone();
        other[500] = 8;
        assert_eq!(write("a", &bytes), write("b", &bytes));
        assert_ne!(write("a", &bytes), write("a", &other));
        assert_ne!(write("a", &bytes), write("a", &bytes[..999]));
        let large = vec![7; 1 << 20];
        let mut changed = large.clone();
        changed[1 << 19..].fill(8);
        assert_ne!(write("a", &large), write("a", &changed));
        assert_ne!(stamp(&dir.path().join("none")), write("empty", &[]));
    }
}
