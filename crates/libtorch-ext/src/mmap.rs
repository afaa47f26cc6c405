//! Read-only memory maps of files.

use std::path::Path;

use memmap2::Advice;
pub use memmap2::Mmap;

/// Maps a file. Pages are read when touched; an empty file gives an empty map.
///
/// If another program truncates the file meanwhile, this one ends with a bus error; replacing the
/// file by renaming (as this program does) is harmless.
///
/// # Errors
/// Returns an error if the file cannot be opened or mapped.
pub fn open(path: &Path) -> std::io::Result<Mmap> {
    let file = std::fs::File::open(path)?;
    // SAFETY: the map is read only, and no Rust reference to the bytes outlives it.
    unsafe { Mmap::map(&file) }
}

/// Runs `f` without read-ahead on the map. With read-ahead, a table of contents scattered over a
/// file would read most of the file.
pub fn sparingly<T>(map: &Mmap, f: impl FnOnce() -> T) -> T {
    advise(map, Advice::Random);
    let result = f();
    advise(map, Advice::Normal);
    result
}

fn advise(map: &Mmap, advice: Advice) {
    // Affects speed only; an empty map, for example, takes no advice.
    let _ = map.advise(advice);
}
