//! JPEG decoding as Pillow does it: libjpeg-turbo's decoder, here in MozJPEG's build, which needs a
//! C compiler and nothing else. Unlike Pillow, damage is an error: libjpeg itself only warns, and
//! paints what is missing grey.
#![allow(unsafe_code)]

use std::mem::{transmute, zeroed};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mozjpeg::{ColorSpace, Decompress};
use mozjpeg_sys as ffi;

/// A decoded picture, rows from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `height × width × 3` bytes, RGB.
    pub rgb: Vec<u8>,
    /// Colour space of the file.
    pub stored: Stored,
}

/// A file's colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Brightness alone.
    Grey,
    /// RGB, or brightness and two differences.
    Rgb,
    /// Four inks, as Adobe keeps them; converted by Pillow's formula.
    Cmyk,
}

/// Decodes a picture.
///
/// # Errors
/// Returns libjpeg's message if the file is damaged or not supported.
pub fn decode(bytes: &[u8]) -> Result<Pixels, String> {
    caught(|| {
        let file = Decompress::with_err(error_manager()).from_mem(bytes).map_err(|e| e.to_string())?;
        let (stored, space) = match file.color_space() {
            ColorSpace::JCS_GRAYSCALE => (Stored::Grey, ColorSpace::JCS_RGB),
            ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => (Stored::Cmyk, ColorSpace::JCS_CMYK),
            _ => (Stored::Rgb, ColorSpace::JCS_RGB),
        };
        let mut started = file.to_colorspace(space).map_err(|e| e.to_string())?;
        let (width, height) = (started.width() as u32, started.height() as u32);
        let pixels = started.read_scanlines::<u8>().map_err(|e| e.to_string())?;
        started.finish().map_err(|e| e.to_string())?;
        let rgb = if stored == Stored::Cmyk { from_inks(&pixels) } else { pixels };
        Ok(Pixels { width, height, rgb, stored })
    })
}

/// Inverted inks → RGB, by Pillow's `cmyk2rgb`.
fn from_inks(pixels: &[u8]) -> Vec<u8> {
    let rounded = |a: u32, b: u32| {
        let product = a * b + 128;
        ((product >> 8) + product) >> 8
    };
    let rgb = |inks: &[u8; 4]| {
        let key = u32::from(inks[3]);
        [inks[0], inks[1], inks[2]].map(|ink| (key - rounded(255 - u32::from(ink), key).min(key)) as u8)
    };
    pixels.as_chunks().0.iter().flat_map(rgb).collect()
}

/// libjpeg's message about a fatal error.
struct Message(String);

/// Runs libjpeg, whose errors unwind.
fn caught<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| match payload.downcast::<Message>() {
        Ok(message) => Err(message.0),
        Err(panic) => resume_unwind(panic),
    })
}

/// Warnings without data loss: bytes between segments, versions, profiles.
const HARMLESS: [ffi::J_MESSAGE_CODE; 4] =
    [ffi::JWRN_EXTRANEOUS_DATA, ffi::JWRN_JFIF_MAJOR, ffi::JWRN_ADOBE_XFORM, ffi::JWRN_BOGUS_ICC];

fn error_manager() -> ffi::jpeg_error_mgr {
    // SAFETY: the struct holds numbers, nullable pointers and optional functions, for all of which
    // zero is valid; `jpeg_std_error` only writes to it.
    let mut manager: ffi::jpeg_error_mgr = unsafe { zeroed() };
    unsafe { ffi::jpeg_std_error(&mut manager) };
    manager.error_exit = Some(give_up);
    manager.emit_message = Some(warned);
    manager
}

extern "C-unwind" fn give_up(common: &mut ffi::jpeg_common_struct) {
    resume_unwind(Box::new(Message(message(common)))) // without the panic hook
}

/// A negative level is a warning, others trace.
extern "C-unwind" fn warned(common: &mut ffi::jpeg_common_struct, level: std::ffi::c_int) {
    // SAFETY: libjpeg calls this with the manager that the decoder was made with, which lives as
    // long as it.
    let code = unsafe { (*common.err).msg_code };
    if level < 0 && !HARMLESS.iter().any(|harmless| *harmless as std::ffi::c_int == code) {
        give_up(common);
    }
}

/// The current message with its numbers filled in.
fn message(common: &mut ffi::jpeg_common_struct) -> String {
    type Format = unsafe extern "C-unwind" fn(&mut ffi::jpeg_common_struct, &mut [u8; 80]);
    let mut buffer = [0; 80];
    // SAFETY: as in `warned`; the function is libjpeg's own and writes at most 80 bytes with a zero
    // at their end. The binding's type takes the buffer as shared, which it is not.
    unsafe {
        if let Some(format) = (*common.err).format_message {
            let format = transmute::<
                unsafe extern "C-unwind" fn(&mut ffi::jpeg_common_struct, &[u8; 80]),
                Format,
            >(format);
            format(common, &mut buffer);
        }
    }
    let text = buffer.split(|&b| b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of `width` x 16 pixels with the given sampling of brightness, through MozJPEG's
    /// encoder.
    fn jpeg(width: usize, sampling: (u8, u8)) -> Vec<u8> {
        let mut encoder = mozjpeg::Compress::new(ColorSpace::JCS_RGB);
        encoder.set_size(width, 16);
        encoder.set_fastest_defaults();
        encoder.set_chroma_sampling_pixel_sizes(sampling, sampling);
        let mut encoder = encoder.start_compress(vec![]).unwrap();
        let pixels: Vec<u8> = (0..width * 16)
            .flat_map(|i| [(i * 7) as u8, (i % width * 4) as u8, (i / width * 9) as u8])
            .collect();
        encoder.write_scanlines(&pixels).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn sound_files_are_read_and_cut_or_damaged_data_are_errors() {
        let sound = jpeg(64, (2, 2));
        let pixels = decode(&sound).unwrap();
        assert_eq!((pixels.width, pixels.height, pixels.rgb.len()), (64, 16, 64 * 16 * 3));
        let data = sound.windows(2).rposition(|w| w == [0xFF, 0xDA]).unwrap() + 14;
        let cut = [&sound[..data + (sound.len() - data) / 2], &[0xFF, 0xD9]].concat();
        let end = sound.len() - 2;
        // No code is all ones.
        let ones = [&sound[..data + 20], &[0xFFu8, 0].repeat(30)[..], &sound[end..]].concat();
        let extra = [&sound[..end], &[1, 2, 3, 4, 5, 6][..], &sound[end..]].concat();
        for bad in [&cut, &ones] {
            assert!(decode(bad).is_err(), "{:?}", decode(bad).map(|p| p.width));
        }
        assert_eq!(decode(&cut).unwrap_err(), "Corrupt JPEG data: premature end of data segment");
        assert_eq!(decode(&extra).unwrap(), pixels, "bytes before the end are harmless");
        assert!(decode(b"\xFF\xD8\xFF\xD9").is_err());
        assert!(decode(b"no picture").unwrap_err().contains("Not a JPEG file"));
    }
}
