//! JPEGs: plain ones by `image`'s fast decoder, all others by libjpeg's, and none without libjpeg's word that it is whole.
//!
//! The fast decoder takes what it is given: what is missing it paints grey, scans of single components and chroma finer than
//! luma come out as stripes, and it says nothing.

use image::RgbImage;
use libjpeg::Pixels;

use crate::decode::{Stored, check_size};

const END: u8 = 0xD9;
const SCAN: u8 = 0xDA;
const ADOBE: u8 = 0xEE;

/// How a file is laid out, by its markers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The marker of the frame's head: 0xC0 and 0xC1 are baseline, 0xC2 is progressive.
    frame: u8,
    precision: u8,
    width: u64,
    height: u64,
    /// Identifier and sampling (horizontally, vertically) of each.
    components: Vec<(u8, u8, u8)>,
    /// The components in each scan.
    scans: Vec<u8>,
    frames: usize,
    adobe: bool,
}

/// Of progressive files; honest ones have some ten. Each goes through all of the picture.
const MOST_SCANS: usize = 1000;
/// Pixels in all scans together.
const MOST_WORK: u64 = 1 << 32;

impl Layout {
    /// `None` if the file's markers do not lead to the one that ends the image. What follows that one does not matter;
    /// cameras put all sorts of things there.
    pub fn of(bytes: &[u8]) -> Option<Layout> {
        let mut at = 2; // behind the start of the image
        let (components, scans) = (vec![], vec![]);
        let mut layout = Layout {
            frame: 0,
            precision: 8,
            width: 0,
            height: 0,
            components,
            scans,
            frames: 0,
            adobe: false,
        };
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
                    layout.scans.push(segment.first().copied().unwrap_or(0));
                    at = end_of_scan(bytes, at);
                }
                // A frame's head, of which there are several kinds; between them are tables for Huffman and arithmetic
                // codes, and a reserved marker.
                0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => layout.frame(marker, segment)?,
                ADOBE => layout.adobe |= segment.starts_with(b"Adobe"),
                _ => {}
            }
        }
    }

    fn frame(&mut self, marker: u8, segment: &[u8]) -> Option<()> {
        let ([precision, h1, h0, w1, w0, count], rest) = segment.split_first_chunk()?;
        (self.frame, self.precision) = (marker, *precision);
        self.height = u16::from_be_bytes([*h1, *h0]).into();
        self.width = u16::from_be_bytes([*w1, *w0]).into();
        let component = |c: &[u8; 3]| (c[0], c[1] >> 4, c[1] & 15);
        self.components = rest.as_chunks().0.iter().take(usize::from(*count)).map(component).collect();
        self.frames += 1;
        Some(())
    }

    /// Refuses what would take too much memory or time.
    fn check(&self) -> Result<(), String> {
        check_size(self.width, self.height)?;
        let scans = self.scans.len();
        if scans > MOST_SCANS
            || self.width * self.height * scans as u64 > MOST_WORK.max(10 * self.width * self.height)
        {
            return Err(format!("{scans} scans of {}x{} pixels", self.width, self.height));
        }
        Ok(())
    }

    /// True for what the fast decoder is known to read as libjpeg does: grey, or brightness with two differences that are as
    /// fine or half as fine, in one scan or progressive.
    fn is_plain(&self) -> bool {
        let luma = [(1, 1), (2, 1), (1, 2), (2, 2)];
        let sampling: Vec<(u8, u8)> = self.components.iter().map(|&(_, h, v)| (h, v)).collect();
        let sampled = match sampling[..] {
            [grey] => grey == (1, 1),
            [first, (1, 1), (1, 1)] => luma.contains(&first),
            _ => false,
        };
        let named: Vec<u8> = self.components.iter().map(|&(id, ..)| id).collect();
        let scanned = match self.frame {
            0xC0 | 0xC1 => self.scans[..] == [self.components.len() as u8],
            0xC2 => true,
            _ => false,
        };
        sampled && scanned && self.precision == 8 && self.frames == 1 && !self.adobe && named != b"RGB"
    }
}

/// Decodes a JPEG; `fast` is the decoder of plain ones.
pub(crate) fn decode(
    bytes: &[u8],
    fast: impl FnOnce() -> Result<(RgbImage, Stored), String>,
) -> Result<(RgbImage, Stored), String> {
    let layout = Layout::of(bytes).ok_or("the JPEG is cut short")?;
    layout.check()?;
    if layout.is_plain() {
        libjpeg::check(bytes)?;
        return fast();
    }
    let Pixels { width, height, rgb, stored } = libjpeg::decode(bytes)?;
    let image = RgbImage::from_raw(width, height, rgb).ok_or("the decoder returned another size")?;
    let stored = match stored {
        libjpeg::Stored::Grey => Stored::Grey,
        libjpeg::Stored::Rgb => Stored::Rgb,
        libjpeg::Stored::Cmyk => Stored::Cmyk,
    };
    Ok((image, stored))
}

/// The next marker from `at` on, and the place behind it. Bytes in between are passed over, as libjpeg does.
fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let pairs = bytes.get(at..)?.windows(2).enumerate();
    let found = pairs
        .map(|(i, pair)| (i, pair[0], pair[1]))
        .find(|&(_, a, b)| a == 0xFF && !matches!(b, 0 | 0xFF))?;
    Some((found.2, at + found.0 + 2))
}

/// Where the compressed data that begin at `at` end: at a marker other than a restart.
fn end_of_scan(bytes: &[u8], mut at: usize) -> usize {
    while let Some((marker, behind)) = next_marker(bytes, at) {
        if !matches!(marker, 0xD0..=0xD7) {
            return behind - 2;
        }
        at = behind;
    }
    bytes.len()
}
