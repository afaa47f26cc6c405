//! 8-bit pictures: from a batch, onto a contact sheet, into a PNG with text.

use std::path::Path;

use base::ImagesU8;
use tch::Device;

use crate::error::{Error, Result};
use crate::files;

/// One RGB picture, rows from the top, three bytes a pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height × width × 3` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// The pictures of a batch (B, 3, H, W).
    ///
    /// # Errors
    /// Returns an error if the tensor cannot be read.
    pub fn from_batch(images: &ImagesU8) -> Result<Vec<Picture>> {
        let nhwc = images.tensor().permute([0, 2, 3, 1]).contiguous().to_device(Device::Cpu);
        let (n, height, width, _) = nhwc.size4()?;
        let (n, height, width) = (n as usize, height as usize, width as usize);
        let bytes = Vec::<u8>::try_from(nhwc.view(-1))?;
        let each = height * width * 3;
        Ok((0..n).map(|i| Picture { width, height, rgb: bytes[i * each..(i + 1) * each].to_vec() }).collect())
    }

    /// A sheet of pictures of one size, `columns` to a row, with a thin white line between them.
    pub fn grid(pictures: &[Picture], columns: usize) -> Option<Picture> {
        const LINE: usize = 2;
        let first = pictures.first()?;
        let (w, h) = (first.width, first.height);
        let columns = columns.clamp(1, pictures.len());
        let rows = pictures.len().div_ceil(columns);
        let (width, height) = (columns * (w + LINE) - LINE, rows * (h + LINE) - LINE);
        let mut rgb = vec![255; width * height * 3];
        for (i, picture) in pictures.iter().enumerate() {
            let (left, top) = ((i % columns) * (w + LINE), (i / columns) * (h + LINE));
            for y in 0..h {
                let at = ((top + y) * width + left) * 3;
                rgb[at..at + w * 3].copy_from_slice(&picture.rgb[y * w * 3..(y + 1) * w * 3]);
            }
        }
        Some(Picture { width, height, rgb })
    }

    /// Bytes of a PNG file, with text chunks (keyword, text).
    ///
    /// # Errors
    /// Returns an error if the picture is too large for a PNG, or a keyword is no keyword.
    pub fn to_png(&self, texts: &[(&str, String)]) -> Result<Vec<u8>, png::EncodingError> {
        let mut bytes = vec![];
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        for (keyword, text) in texts {
            encoder.add_itxt_chunk((*keyword).to_owned(), text.clone())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()?;
        Ok(bytes)
    }

    /// Writes a PNG file, whole or not at all.
    ///
    /// # Errors
    /// Returns an error if the picture cannot be encoded or the file cannot be written.
    pub fn write_png(&self, path: &Path, texts: &[(&str, String)]) -> Result<()> {
        let bytes = self.to_png(texts).map_err(|source| Error::Encode { path: path.to_owned(), source })?;
        files::write(path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(value: u8) -> Picture {
        Picture { width: 2, height: 1, rgb: vec![value; 6] }
    }

    #[test]
    fn a_grid_fills_rows_and_leaves_white_between() {
        let grid = Picture::grid(&[plain(1), plain(2), plain(3)], 2).unwrap();
        assert_eq!((grid.width, grid.height), (6, 4));
        let reds: Vec<u8> = grid.rgb.iter().step_by(3).copied().collect();
        assert_eq!(reds[..6], [1, 1, 255, 255, 2, 2]);
        assert_eq!(reds[18..], [3, 3, 255, 255, 255, 255]);
        assert!(Picture::grid(&[], 4).is_none());
    }
}
