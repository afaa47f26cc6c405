//! Bytes → RGB, as Pillow's `Image.open(f).convert("RGB")`.

use std::io::Cursor;

use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::{Error, Result, jpeg};

/// Extensions taken for images when folders and archives are listed: torchvision's `IMG_EXTENSIONS`, less the
/// formats we do not decode, plus GIF.
pub const IMAGE_EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "bmp", "gif"];

/// True if the name ends like an image's.
pub fn looks_like_image(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, e)| IMAGE_EXTENSIONS.iter().any(|x| e.eq_ignore_ascii_case(x)))
}

/// True if the bytes begin like an image of a format we decode.
pub fn is_image(bytes: &[u8]) -> bool {
    image::guess_format(bytes).is_ok_and(|f| f.reading_enabled())
}

/// What an image's file holds, where that is not 8-bit RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stored {
    /// 8-bit RGB, or a palette of it: taken as it is.
    Rgb,
    /// Grey: repeated on three channels, as Pillow does.
    Grey,
    /// With transparency, which is dropped.
    Transparent,
    /// More than 8 bits a channel: rounded to 8.
    Deep,
    /// Four inks, converted by the decoder; decoders differ.
    Cmyk,
}

impl Stored {
    fn of(color: ExtendedColorType) -> Self {
        use ExtendedColorType as C;
        match color {
            C::L1 | C::L2 | C::L4 | C::L8 => Stored::Grey,
            C::A8
            | C::La1
            | C::La2
            | C::La4
            | C::La8
            | C::Rgba1
            | C::Rgba2
            | C::Rgba4
            | C::Rgba8
            | C::Bgra8 => Stored::Transparent,
            C::L16 | C::La16 | C::Rgb16 | C::Rgba16 | C::Rgb32F | C::Rgba32F => Stored::Deep,
            C::Cmyk8 | C::Cmyk16 => Stored::Cmyk,
            _ => Stored::Rgb,
        }
    }
}

/// Decodes by content, whatever the name says; of an animation the first picture. Transparency is dropped, not blended, and EXIF rotation is not
/// applied, as in torchvision's loader.
pub fn decode(key: &str, bytes: &[u8]) -> Result<(RgbImage, Stored)> {
    let fail = |message: String| Error::Decode { key: key.to_owned(), message };
    if !is_image(bytes) {
        return Err(fail(not_an_image(bytes)));
    }
    // A decoder's panic on damaged bytes is that image's error, not the program's.
    std::panic::catch_unwind(|| decode_known(bytes))
        .unwrap_or_else(|_| Err("the decoder panicked".into()))
        .map_err(|message| fail(format!("damaged: {message}")))
}

fn decode_known(bytes: &[u8]) -> std::result::Result<(RgbImage, Stored), String> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let components = match reader.format() {
        Some(ImageFormat::Jpeg) => jpeg::components(bytes).ok_or("the JPEG is cut short")?,
        _ => 3,
    };
    let mut decoder = reader.into_decoder().map_err(|e| e.to_string())?;
    let stored = if components == 4 { Stored::Cmyk } else { Stored::of(decoder.original_color_type()) };
    decoder.set_limits(Limits::default()).map_err(|e| e.to_string())?;
    let image = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
    Ok(match image {
        DynamicImage::ImageRgb8(rgb) => (rgb, stored),
        other => (other.to_rgb8(), stored),
    })
}

fn not_an_image(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "empty".into();
    }
    let head = &bytes[..bytes.len().min(16)];
    let what = match std::str::from_utf8(head) {
        Ok(text) if !text.contains('\0') => format!("text beginning with {text:?}"),
        _ => format!("bytes beginning with {head:02x?}"),
    };
    format!("not an image: expected one of {}, found {what}", IMAGE_EXTENSIONS.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Vec::new();
        image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        bytes
    }

    #[test]
    fn grey_and_transparent_images_become_rgb_as_in_pillow() {
        let grey = DynamicImage::ImageLuma8(image::GrayImage::from_pixel(2, 1, image::Luma([77])));
        assert_eq!(decode("g", &png(&grey)).unwrap().0.get_pixel(1, 0).0, [77; 3]);
        let clear = DynamicImage::ImageRgba8(image::RgbaImage::from_pixel(1, 1, image::Rgba([9, 8, 7, 0])));
        assert_eq!(decode("a", &png(&clear)).unwrap().0.get_pixel(0, 0).0, [9, 8, 7]);
    }

    #[test]
    fn what_a_file_holds_is_told() {
        let deep =
            DynamicImage::ImageRgb16(image::ImageBuffer::from_pixel(1, 1, image::Rgb([25_700, 0, 65_535])));
        let (rgb, stored) = decode("d", &png(&deep)).unwrap();
        assert_eq!((rgb.get_pixel(0, 0).0, stored), ([100, 0, 255], Stored::Deep));
        let grey = DynamicImage::ImageLuma8(image::GrayImage::new(1, 1));
        assert_eq!(decode("g", &png(&grey)).unwrap().1, Stored::Grey);
        let plain = DynamicImage::ImageRgb8(RgbImage::new(1, 1));
        assert_eq!(decode("p", &png(&plain)).unwrap().1, Stored::Rgb);
    }

    #[test]
    fn text_truncated_and_empty_files_are_named_errors() {
        let e = decode("notes.png", b"hello, this is text").unwrap_err().to_string();
        assert!(e.contains("notes.png") && e.contains("hello"), "{e}");
        assert!(decode("empty.png", b"").unwrap_err().to_string().contains("empty"));
        let whole = png(&DynamicImage::ImageRgb8(RgbImage::from_fn(64, 64, |x, y| {
            image::Rgb([x as u8, y as u8, (x * y) as u8])
        })));
        assert!(decode("half.png", &whole[..whole.len() / 2]).is_err());
    }
}
