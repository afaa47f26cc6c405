//! Files mapped into memory, read only.

use std::path::Path;

pub use memmap2::Mmap;

/// Maps a file. Nothing is read until it is touched; an empty file gives an empty map.
///
/// As with every mapped file, another program that shortens it meanwhile ends this one with a bus error;
/// programs that replace files by renaming (as this one does) are harmless.
pub fn open(path: &Path) -> std::io::Result<Mmap> {
    let file = std::fs::File::open(path)?;
    // SAFETY: the map is read only, and no Rust reference to the bytes outlives it.
    unsafe { Mmap::map(&file) }
}
