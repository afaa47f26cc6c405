//! Files as users have them: cut off, in four inks, progressive.

use std::io::Cursor;

use data::{Stored, decode};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

const CMYK: &[u8] = include_bytes!("files/cmyk.jpg");
const PLAIN: &[u8] = include_bytes!("files/plain.jpg");
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

/// Sums of the pixels that Pillow 13 makes of them: chroma half as fine, progressive, four inks.
#[test]
fn jpegs_are_pillows_to_the_bit() {
    for (bytes, stored, sum) in [
        (PLAIN, Stored::Rgb, "afca734fe28abd71f67fa454311910ab9ad5bed14f820189f2a801040ecb2da5"),
        (PROGRESSIVE, Stored::Rgb, "6f67a89bbb3cf7233d5ef98160e0b767db143457f298b533fd4174af44ac501b"),
        (CMYK, Stored::Cmyk, "b2bcb704494c18df4676fcb6a9d174a37de845d79d36adae02b373bc532629e1"),
    ] {
        let (image, found) = decode("x", bytes).unwrap();
        let digest = base::hash::hex(&base::hash::sha256(image.as_raw()));
        assert_eq!((found, digest.as_str()), (stored, sum));
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
