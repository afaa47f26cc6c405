//! Bytes → RGB, as Pillow's `Image.open(f).convert("RGB")`.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::limits::{check_size, max_pixels, most_bytes};
use crate::stored::Stored;
use crate::{Error, Result, gif, jpeg};

/// Extensions taken for images when folders and archives are listed: torchvision's
/// `IMG_EXTENSIONS`, less the formats we do not decode, plus GIF.
pub const IMAGE_EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "bmp", "gif"];

/// True if the name ends like an image's.
pub fn looks_like_image(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, e)| IMAGE_EXTENSIONS.iter().any(|x| e.eq_ignore_ascii_case(x)))
}

/// True if the bytes begin like an image of a format we decode.
pub fn is_image(bytes: &[u8]) -> bool {
    image::guess_format(bytes).is_ok_and(|f| f.reading_enabled())
}

/// Decodes by content, regardless of the name; of an animation the first picture. Transparency is
/// dropped, not blended, and EXIF rotation is not applied, as in torchvision's loader.
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
    match image::guess_format(bytes).map_err(|e| e.to_string())? {
        ImageFormat::Gif => {
            let (image, transparent) = gif::decode(bytes)?;
            Ok((image, if transparent { Stored::Transparent } else { Stored::Rgb }))
        }
        ImageFormat::Jpeg => jpeg::decode(bytes),
        _ => by_image(bytes),
    }
}

/// Limits of allocation for this many pixels: 16 bits of four channels, and room for the file's
/// other contents.
fn limits(pixels: u64) -> Limits {
    const ROOM: u64 = 1 << 25;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(pixels.saturating_mul(8).saturating_add(ROOM).min(most_bytes()));
    limits
}

/// Width and height as a PNG's head claims them.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let head = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?.get(8..16)?;
    let number = |b: &[u8]| Some(u32::from_be_bytes(b.try_into().ok()?));
    Some((number(&head[..4])?, number(&head[4..])?))
}

/// Decodes with the crate `image`.
fn by_image(bytes: &[u8]) -> std::result::Result<(RgbImage, Stored), String> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    // A PNG's decoder reads everything before its pixels before it reports their number, and
    // applies only the limits set at its creation.
    let claimed = png_size(bytes).map_or(max_pixels(), |(w, h)| u64::from(w) * u64::from(h));
    reader.limits(limits(claimed));
    let mut decoder = reader.into_decoder().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    let stored = Stored::of(decoder.original_color_type());
    decoder.set_limits(limits(u64::from(width) * u64::from(height))).map_err(|e| e.to_string())?;
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

    /// A PNG's head that claims a size, and no data.
    fn claims(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = png(&DynamicImage::ImageRgb8(RgbImage::new(1, 1)));
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        bytes
    }

    #[test]
    fn an_image_is_refused_by_its_head_where_it_claims_too_many_pixels() {
        let e = decode("bomb.png", &claims(30_000, 30_000)).unwrap_err().to_string();
        assert!(e.contains("`bomb.png`: damaged: 30000x30000 pixels are more than the 178956970"), "{e}");
        let gif = [b"GIF89a".as_slice(), &60_000u16.to_le_bytes(), &60_000u16.to_le_bytes(), &[0x80, 0, 0]]
            .concat();
        let gif = [&gif[..], &[0; 6], b",\0\0\0\0\x01\0\x01\0\0", &[2, 2, 0x44, 1, 0, b';']].concat();
        let e = decode("bomb.gif", &gif).unwrap_err().to_string();
        assert!(e.contains("60000x60000 pixels are more"), "{e}");
        // One pixel less than the limit is not refused for its size.
        let e = decode("large.png", &claims(178_956_970, 1)).unwrap_err().to_string();
        assert!(!e.contains("are more than"), "{e}");
    }

    /// A profile of 256 MiB of zeros in front of one pixel: no more is inflated than the picture's
    /// size allows.
    #[test]
    fn what_lies_in_front_of_the_pixels_is_bounded_by_their_number() {
        let plain = png(&DynamicImage::ImageRgb8(RgbImage::from_pixel(1, 1, image::Rgb([7; 3]))));
        let mut deflate = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::best());
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 1 << 28), &mut deflate).unwrap();
        let body = [b"iCCPx\0\0".as_slice(), &deflate.finish().unwrap()].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        let length = (body.len() as u32 - 4).to_be_bytes();
        let bomb = [&plain[..33], &length, &body, &crc.sum().to_be_bytes(), &plain[33..]].concat();
        let peak = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
        };
        let before = peak();
        let found = decode("bomb.png", &bomb).map(|(image, _)| image.get_pixel(0, 0).0);
        assert!(found.as_ref().map_or(true, |pixel| *pixel == [7; 3]), "{found:?}");
        assert!(peak() < before + 128, "{} MiB, before {before}", peak());
        assert_eq!(png_size(&claims(300, 20)), Some((300, 20)));
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
