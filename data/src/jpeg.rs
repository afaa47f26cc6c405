//! What the decoder does not tell of a JPEG: whether it is whole, and of how many components. It paints what is
//! missing of a cut one grey; Pillow refuses it, and so do we.

const END: u8 = 0xD9;
const SCAN: u8 = 0xDA;

/// The number of components, 4 for an image of four inks; `None` if the file's markers do not lead to the one that
/// ends the image. What follows that one does not matter; cameras put all sorts of things there.
pub(crate) fn components(bytes: &[u8]) -> Option<u8> {
    let (mut at, mut components) = (2, 0); // behind the start of the image
    loop {
        let (marker, behind) = next_marker(bytes, at)?;
        at = match marker {
            END => return Some(components),
            0x01 | 0xD0..=0xD7 => behind, // stand alone
            _ => {
                let length = bytes.get(behind..behind + 2)?;
                behind + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2)
            }
        };
        match marker {
            SCAN => at = end_of_scan(bytes, at),
            // A frame's head, of which there are several kinds; between them are tables for Huffman and
            // arithmetic codes, and a reserved marker.
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => components = *bytes.get(behind + 7)?,
            _ => {}
        }
    }
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
