//! Files as users have them: cut off, in four inks, progressive.

use std::io::Cursor;

use data::{Stored, decode};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

const CMYK: &[u8] = include_bytes!("files/cmyk.jpg");
const PROGRESSIVE: &[u8] = include_bytes!("files/progressive.jpg");

fn encoded(format: ImageFormat) -> Vec<u8> {
    let noisy =
        RgbImage::from_fn(61, 47, |x, y| Rgb([(x * y) as u8, ((x * 31) ^ (y * 17)) as u8, (y * y) as u8]));
    let mut bytes = Cursor::new(vec![]);
    DynamicImage::from(noisy).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn a_file_that_was_cut_is_damaged_in_every_format() {
    let formats =
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp]
            .map(encoded);
    for whole in formats.iter().map(Vec::as_slice).chain([CMYK, PROGRESSIVE]) {
        assert!(decode("whole", whole).is_ok());
        for share in [0.3, 0.6, 0.9] {
            let cut = &whole[..(whole.len() as f64 * share) as usize];
            let error = decode("cut", cut).expect_err(&format!("{:02x?} {share}", &whole[..4])).to_string();
            assert!(error.contains("`cut`: damaged: "), "{error}");
        }
    }
}

#[test]
fn a_jpeg_may_have_something_behind_its_end_and_in_front_of_its_markers() {
    let jpeg = encoded(ImageFormat::Jpeg);
    let plain = decode("plain", &jpeg).unwrap().0;
    let trailed = [&jpeg[..], &[0xFF, 0xD8, 0xFF, 0xE1, 0, 9, 1, 2]].concat();
    assert_eq!(decode("trailed", &trailed).unwrap().0, plain);
}

/// Pixels as Pillow 11 decodes them (its libjpeg rounds differently by one or two in plain files).
#[test]
fn inks_become_the_colours_that_pillow_makes_of_them() {
    for (bytes, stored, left, right) in [
        (CMYK, Stored::Cmyk, [200u8, 91, 60], [31u8, 91, 60]),
        (PROGRESSIVE, Stored::Rgb, [197, 90, 58], [29, 91, 66]),
    ] {
        let (image, found) = decode("x", bytes).unwrap();
        assert_eq!(found, stored);
        for (pixel, expected) in [(image.get_pixel(1, 1), left), (image.get_pixel(13, 14), right)] {
            let far = pixel.0.iter().zip(expected).map(|(a, b)| a.abs_diff(b)).max().unwrap();
            assert!(far <= 3, "{stored:?}: {pixel:?}, not {expected:?}");
        }
    }
}

/// A plain file with its scan's data changed.
fn with_scan(change: impl FnOnce(&mut Vec<u8>, usize)) -> Vec<u8> {
    let mut bytes = encoded(ImageFormat::Jpeg);
    let start = bytes.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap() + 14;
    change(&mut bytes, start);
    bytes
}

#[test]
fn a_jpeg_with_damage_inside_is_damaged_even_if_it_ends_well() {
    let cut = with_scan(|bytes, start| {
        bytes.truncate(start + (bytes.len() - start) / 2);
        bytes.extend([0xFF, 0xD9]);
    });
    // No code of a JPEG is all ones.
    let ones = with_scan(|bytes, start| {
        let end = bytes.len() - 2;
        bytes.splice(start + 40..end, [0xFF, 0].repeat(30));
    });
    for bad in [cut, ones] {
        let error = decode("bad", &bad).unwrap_err().to_string();
        assert!(error.contains("`bad`: damaged: Corrupt JPEG data"), "{error}");
    }
    // Bytes too many are no damage.
    let plain = decode("plain", &encoded(ImageFormat::Jpeg)).unwrap().0;
    let more = with_scan(|bytes, _| {
        let end = bytes.len() - 2;
        bytes.splice(end..end, [1, 2, 3]);
    });
    assert_eq!(decode("more", &more).unwrap().0, plain);
}

#[test]
fn inks_are_pillows_to_the_bit() {
    let (image, _) = decode("x", CMYK).unwrap();
    assert_eq!((image.get_pixel(1, 1).0, image.get_pixel(13, 14).0), ([200, 91, 60], [31, 91, 60]));
}

#[test]
fn a_picture_of_too_many_pixels_is_refused_by_its_head_in_every_format() {
    let jpeg = with_scan(|bytes, _| {
        let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]); // 65,500 x 65,500
    });
    let mut bmp = encoded(ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&40_000i32.to_le_bytes());
    bmp[22..26].copy_from_slice(&40_000i32.to_le_bytes());
    for (bytes, size) in [(jpeg, "65500x65500"), (bmp, "40000x40000")] {
        let error = decode("large", &bytes).unwrap_err().to_string();
        assert!(error.contains(&format!("{size} pixels are more than the 178956970")), "{error}");
    }
}
