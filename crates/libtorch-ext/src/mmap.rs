//! Files mapped into memory, read only.

use std::path::Path;

use memmap2::Advice;
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

/// Runs `f` while single pages of the map are read as they are touched. Otherwise the system reads megabytes
/// around each, and a table of contents that is strewn over a file costs most of the file.
pub fn sparingly<T>(map: &Mmap, f: impl FnOnce() -> T) -> T {
    advise(map, Advice::Random);
    let result = f();
    advise(map, Advice::Normal);
    result
}

fn advise(map: &Mmap, advice: Advice) {
    // Only speed depends on it; an empty map, for one, takes no advice.
    let _ = map.advise(advice);
}
