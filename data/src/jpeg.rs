//! JPEGs by libjpeg's decoder, which gives Pillow's pixels, once their markers show that they are
//! whole and not too large.
//!
//! The decoder of the crate `image` rounds otherwise (up to 5 levels), paints what is missing grey,
//! makes stripes of scans of single components and of chroma finer than luma, without a warning.

use image::RgbImage;
use libjpeg::Pixels;

use crate::limits::check_size;
use crate::stored::Stored;

const END: u8 = 0xD9;
const SCAN: u8 = 0xDA;

/// Size of the decoding work, from a file's markers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Layout {
    width: u64,
    height: u64,
    scans: u64,
}

/// Most scans of a progressive file; ordinary ones have some ten. Each covers the whole picture.
const MOST_SCANS: u64 = 1000;
/// Pixels in all scans together.
const MOST_WORK: u64 = 1 << 32;

impl Layout {
    /// `None` if the file's markers do not lead to the one that ends the image. What follows that
    /// one does not matter; cameras put all sorts of things there.
    fn of(bytes: &[u8]) -> Option<Layout> {
        let mut at = 2; // behind the start of the image
        let mut layout = Layout::default();
        loop {
            let (marker, behind) = next_marker(bytes, at)?;
            if marker == END {
                return Some(layout);
            }
            if matches!(marker, 0x01 | 0xD0..=0xD7) {
                at = behind; // these stand alone
                continue;
            }
            let length = usize::from(u16::from_be_bytes(*bytes.get(behind..)?.first_chunk()?)).max(2);
            at = behind + length;
            let segment = bytes.get(behind + 2..at).unwrap_or_default();
            match marker {
                SCAN => {
                    layout.scans += 1;
                    at = end_of_scan(bytes, at);
                }
                // A frame's head, of which there are several kinds; between them are tables for
                // Huffman and arithmetic codes, and a reserved marker.
                0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => layout.frame(segment)?,
                _ => {}
            }
        }
    }

    /// Takes in a frame's head. There is one; of more, the largest sides count.
    fn frame(&mut self, segment: &[u8]) -> Option<()> {
        let [_precision, h1, h0, w1, w0] = *segment.first_chunk()?;
        self.height = self.height.max(u16::from_be_bytes([h1, h0]).into());
        self.width = self.width.max(u16::from_be_bytes([w1, w0]).into());
        Some(())
    }

    /// Refuses what would take too much memory or time.
    fn check(&self) -> Result<(), String> {
        check_size(self.width, self.height)?;
        let Layout { width, height, scans } = *self;
        let pixels = width * height;
        if scans > MOST_SCANS || pixels * scans > MOST_WORK.max(10 * pixels) {
            return Err(format!("{scans} scans of {width}x{height} pixels"));
        }
        Ok(())
    }
}

/// Decodes a JPEG.
pub(crate) fn decode(bytes: &[u8]) -> Result<(RgbImage, Stored), String> {
    Layout::of(bytes).ok_or("the JPEG is cut short")?.check()?;
    let Pixels { width, height, rgb, stored } = libjpeg::decode(bytes)?;
    let image = RgbImage::from_raw(width, height, rgb).ok_or("the decoder returned another size")?;
    let stored = match stored {
        libjpeg::Stored::Grey => Stored::Grey,
        libjpeg::Stored::Rgb => Stored::Rgb,
        libjpeg::Stored::Cmyk => Stored::Cmyk,
    };
    Ok((image, stored))
}

/// The next marker from `at` on, and the place behind it. Bytes in between are passed over, as
/// libjpeg does.
fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let pairs = bytes.get(at..)?.windows(2).enumerate();
    let found = pairs
        .map(|(i, pair)| (i, pair[0], pair[1]))
        .find(|&(_, a, b)| a == 0xFF && !matches!(b, 0 | 0xFF))?;
    Some((found.2, at + found.0 + 2))
}

/// End of the compressed data that begin at `at`: a marker other than a restart.
fn end_of_scan(bytes: &[u8], mut at: usize) -> usize {
    while let Some((marker, behind)) = next_marker(bytes, at) {
        if !matches!(marker, 0xD0..=0xD7) {
            return behind - 2;
        }
        at = behind;
    }
    bytes.len()
}
