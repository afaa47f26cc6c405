//! The form of an image's pixels in its file.

use image::ExtendedColorType;

/// Form of the pixels in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stored {
    /// 8-bit RGB, or a palette of it; unchanged.
    Rgb,
    /// Grey: repeated on three channels, as Pillow does.
    Grey,
    /// With transparency, which is dropped.
    Transparent,
    /// More than 8 bits a channel: rounded to 8.
    Deep,
    /// Four inks, converted by Pillow's formula.
    Cmyk,
}

impl Stored {
    pub(crate) fn of(color: ExtendedColorType) -> Self {
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
