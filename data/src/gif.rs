//! The first picture of a GIF on its canvas, as Pillow reads it.

use std::io::Cursor;
use std::num::NonZeroU64;

use image::{Rgb, RgbImage};

use crate::limits::{check_size, max_pixels};

/// The picture, and whether it has a transparent colour. What it does not cover of the canvas has
/// that colour, or else the first of its palette; transparency itself is dropped.
pub(crate) fn decode(bytes: &[u8]) -> Result<(RgbImage, bool), String> {
    let fail = |e: gif::DecodingError| e.to_string();
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::Indexed);
    options
        .set_memory_limit(gif::MemoryLimit::Bytes(NonZeroU64::new(max_pixels()).ok_or("no pixels at all")?));
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(fail)?;
    let canvas = (u32::from(decoder.width()), u32::from(decoder.height()));
    let frame = decoder.next_frame_info().map_err(fail)?.ok_or("it holds no picture")?;
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let (width, height) = (u32::from(frame.width), u32::from(frame.height));
    let transparent = frame.transparent;
    // A picture that is larger than the canvas makes it larger.
    let (w, h) = (canvas.0.max(left + width), canvas.1.max(top + height));
    check_size(u64::from(w), u64::from(h))?;
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(fail)?;
    let palette = decoder.palette().map_err(fail)?;
    let colour = |index: u8| {
        let at = usize::from(index) * 3;
        // Beyond its palette Pillow has greys.
        Rgb(palette.get(at..at + 3).map_or([index; 3], |c| [c[0], c[1], c[2]]))
    };
    let mut image = RgbImage::from_pixel(w, h, colour(transparent.unwrap_or(0)));
    for (i, &index) in indices.iter().enumerate().take(width as usize * height as usize) {
        let (x, y) = (i as u32 % width, i as u32 / width);
        image.put_pixel(left + x, top + y, colour(index));
    }
    Ok((image, transparent.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of one red pixel at (1, 2) of a 3 x 4 canvas.
    fn gif(transparent: Option<u8>) -> Vec<u8> {
        let mut bytes = vec![];
        let palette = [10, 20, 30, 255, 0, 0, 7, 8, 9];
        let mut encoder = gif::Encoder::new(&mut bytes, 3, 4, &palette).unwrap();
        let mut frame = gif::Frame::from_indexed_pixels(1, 1, [1], transparent);
        (frame.left, frame.top) = (1, 2);
        encoder.write_frame(&frame).unwrap();
        drop(encoder);
        bytes
    }

    #[test]
    fn what_the_first_picture_leaves_of_the_canvas_has_pillows_colour() {
        for (transparent, around) in [(None, [10, 20, 30]), (Some(2), [7, 8, 9])] {
            let (image, clear) = decode(&gif(transparent)).unwrap();
            assert_eq!((image.dimensions(), clear), ((3, 4), transparent.is_some()));
            assert_eq!((image.get_pixel(1, 2).0, image.get_pixel(0, 0).0), ([255, 0, 0], around));
        }
    }
}
