//! Limit of an image's pixels, for the whole process.

use std::sync::atomic::{AtomicU64, Ordering};

/// Pillow's own limit, beyond which an image counts as a decompression bomb.
const PILLOWS_LIMIT: u64 = 178_956_970;
static MAX_PIXELS: AtomicU64 = AtomicU64::new(PILLOWS_LIMIT);

/// Sets the most pixels of an image; larger ones count as damaged. For the whole process, as in
/// Pillow.
pub fn set_max_pixels(pixels: u64) {
    MAX_PIXELS.store(pixels, Ordering::Relaxed);
}

pub(crate) fn max_pixels() -> u64 {
    MAX_PIXELS.load(Ordering::Relaxed)
}

/// Bytes that no file of this many pixels exceeds: 16 bits of four channels, and room for its other
/// contents. Decoding takes no more at a time.
pub(crate) fn most_bytes() -> u64 {
    max_pixels().saturating_mul(8).saturating_add(1 << 26)
}

/// Refuses a size before anything of it is allocated.
pub(crate) fn check_size(width: u64, height: u64) -> std::result::Result<(), String> {
    if width == 0 || height == 0 {
        return Err(format!("{width}x{height} pixels"));
    }
    match width.checked_mul(height).is_some_and(|pixels| pixels <= max_pixels()) {
        true => Ok(()),
        false => Err(too_large(width, height)),
    }
}

/// Message about a size that is refused.
pub(crate) fn too_large(width: u64, height: u64) -> String {
    format!(
        "{width}x{height} pixels are more than the {} that are read; `--max-pixels N` allows more",
        max_pixels()
    )
}
