//! Pictures as files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use generate::{Picture, Provenance};
use image::ExtendedColorType::Rgb8;
use image::ImageEncoder as _;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;

use crate::error::{ApiError, Result};

/// Form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PNG, with the picture's settings where it has some.
    Png,
    /// JPEG of a quality from 1 to 100.
    Jpeg(u8),
    /// WebP without loss.
    Webp,
}

impl Format {
    /// The form that `output_format` and `output_compression` select.
    ///
    /// # Errors
    /// Returns an error if there is no such form.
    pub fn of(format: Option<&str>, compression: Option<i64>) -> Result<Format> {
        let param = "output_compression";
        if let Some(found) = compression.filter(|c| !(0..=100).contains(c)) {
            return Err(ApiError::range(param, found, 0, 100));
        }
        let format = format.unwrap_or("png");
        match (format, compression) {
            ("jpeg", quality) => Ok(Format::Jpeg(quality.unwrap_or(100).max(1) as u8)),
            ("png" | "webp", Some(0..100)) => {
                let message = format!("Invalid '{param}': {format} is written without loss; leave it out.");
                Err(ApiError::invalid(param, "invalid_value", message))
            }
            ("png", _) => Ok(Format::Png),
            ("webp", _) => Ok(Format::Webp),
            (other, _) => Err(ApiError::value("output_format", other, &["png", "jpeg", "webp"])),
        }
    }

    /// Its name in requests and answers.
    pub fn name(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg(_) => "jpeg",
            Format::Webp => "webp",
        }
    }

    /// Bytes of a file.
    ///
    /// # Errors
    /// Returns an error if the picture is too large for the form.
    pub fn encode(self, picture: &Picture, provenance: Option<&Provenance>) -> Result<Vec<u8>> {
        let mut bytes = vec![];
        let (width, height) = (picture.width as u32, picture.height as u32);
        match self {
            Format::Png => {
                let texts = provenance.map(Provenance::texts).transpose().map_err(|e| unwritable(&e))?;
                bytes = picture.to_png(&texts.unwrap_or_default()).map_err(|e| unwritable(&e))?;
            }
            Format::Jpeg(quality) => JpegEncoder::new_with_quality(&mut bytes, quality)
                .write_image(&picture.rgb, width, height, Rgb8)
                .map_err(|e| unwritable(&e))?,
            Format::Webp => WebPEncoder::new_lossless(&mut bytes)
                .write_image(&picture.rgb, width, height, Rgb8)
                .map_err(|e| unwritable(&e))?,
        }
        Ok(bytes)
    }
}

fn unwritable(error: &dyn std::error::Error) -> ApiError {
    ApiError::internal(format!("The image cannot be written: {error}"), true)
}

/// Bytes in base 64, with padding.
pub fn base64_of(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_for_what_loses() {
        assert_eq!(Format::of(None, None).unwrap(), Format::Png);
        assert_eq!(Format::of(Some("jpeg"), Some(0)).unwrap(), Format::Jpeg(1));
        assert_eq!(Format::of(Some("webp"), Some(100)).unwrap(), Format::Webp);
        let param = |format, compression| {
            Format::of(Some(format), compression).unwrap_err().to_body().error.param.unwrap()
        };
        assert_eq!(param("png", Some(50)), "output_compression");
        assert_eq!(param("jpeg", Some(101)), "output_compression");
        assert_eq!(param("avif", None), "output_format");
    }

    #[test]
    fn every_form_is_read_back() {
        let picture = Picture { width: 2, height: 1, rgb: vec![10, 20, 30, 200, 100, 0] };
        for format in [Format::Png, Format::Jpeg(90), Format::Webp] {
            let bytes = format.encode(&picture, None).unwrap();
            let (read, _) = data::decode("x", &bytes).unwrap();
            assert_eq!(read.dimensions(), (2, 1), "{format:?}");
            assert!(format == Format::Jpeg(90) || read.as_raw() == &picture.rgb, "{format:?}");
        }
    }
}
