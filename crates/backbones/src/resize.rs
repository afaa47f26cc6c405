//! The resizes that feature networks were published with. Each differs from the others by more than
//! the networks' tolerance.

use base::ImagesU8;
use data::resize::{Filter, Region, resize, resize_region};
use image::RgbImage;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// TensorFlow 1's `resize_bilinear` without aligned corners, in fp32: output i reads from `i ·
/// in/out`, so the first sample always hits the first pixel. No antialias. (B, C, H, W) fp32 →
/// (B, C, height, width).
pub fn tf1_bilinear(x: &Tensor, height: i64, width: i64) -> Tensor {
    let size = x.size();
    let (lo, hi, t) = taps(size[3], width, x.device());
    let left = x.index_select(3, &lo);
    let rows = &left + (x.index_select(3, &hi) - &left) * t; // (B, C, H, width)
    let (lo, hi, t) = taps(size[2], height, x.device());
    let top = rows.index_select(2, &lo);
    &top + (rows.index_select(2, &hi) - &top) * t.view([-1, 1])
}

/// For each output, the two inputs around it, and its distance from the first.
fn taps(input: i64, output: i64, device: Device) -> (Tensor, Tensor, Tensor) {
    let scale = input as f32 / output as f32;
    let position: Vec<f32> = (0..output).map(|i| i as f32 * scale).collect();
    let lo: Vec<i64> = position.iter().map(|p| p.floor() as i64).collect();
    let hi: Vec<i64> = lo.iter().map(|&l| (l + 1).min(input - 1)).collect();
    let t: Vec<f32> = position.iter().zip(&lo).map(|(p, &l)| p - l as f32).collect();
    let to = |t: Tensor| t.to_device(device);
    (to(Tensor::from_slice(&lo)), to(Tensor::from_slice(&hi)), to(Tensor::from_slice(&t)))
}

/// PyTorch's bilinear `interpolate`: half-pixel centres, no antialias. (B, C, H, W) → (B, C,
/// height, width).
pub fn half_pixel_bilinear(x: &Tensor, height: i64, width: i64) -> Tensor {
    x.upsample_bilinear2d([height, width], false, None, None)
}

/// PyTorch's bicubic `interpolate`: a = -0.75, half-pixel centres, no antialias.
pub fn half_pixel_bicubic(x: &Tensor, height: i64, width: i64) -> Tensor {
    x.upsample_bicubic2d([height, width], false, None, None)
}

/// Pillow's antialiased bicubic (a = -0.5) on floating channels, not rounded: clean-fid's.
/// PyTorch's antialiased kernel has Pillow's taps and weights; float64, as Pillow sums.
pub fn pillow_bicubic_float(x: &Tensor, height: i64, width: i64) -> Tensor {
    let double = x.to_kind(Kind::Double);
    double.internal_upsample_bicubic2d_aa([height, width], false, None, None).to_kind(Kind::Float)
}

/// Pillow's antialiased bicubic on 8-bit images, bit for bit, each side stretched on its own.
///
/// # Errors
/// Returns an error if a size is not positive, or the images are empty.
pub fn pillow_bicubic(images: &ImagesU8, height: i64, width: i64) -> Result<ImagesU8> {
    let (h, w) = (side(height)?, side(width)?);
    each_picture(images, h, w, |picture| resize(picture, w, h, Filter::Bicubic))
}

/// CLIP's own: the short side to `size` (Pillow's bicubic; the long side rounded down), then the
/// centre square.
///
/// # Errors
/// Returns an error as [`pillow_bicubic`] does.
pub fn pillow_short_side(images: &ImagesU8, size: i64) -> Result<ImagesU8> {
    let s = side(size)?;
    each_picture(images, s, s, |picture| {
        let (w, h) = picture.dimensions();
        let long = |side: u32| (u64::from(s) * u64::from(side) / u64::from(w.min(h))) as u32;
        let (width, height) = (long(w), long(h));
        // torchvision's `round`: half to even.
        let middle = |side: u32| (f64::from(side - s) / 2.0).round_ties_even() as u32;
        let region = Region { x: middle(width), y: middle(height), width: s, height: s };
        resize_region(picture, width, height, Filter::Bicubic, region)
    })
}

/// CMMD's: the centre square of the stored image, then Pillow's bicubic.
///
/// # Errors
/// Returns an error as [`pillow_bicubic`] does.
pub fn pillow_centre_square(images: &ImagesU8, size: i64) -> Result<ImagesU8> {
    let s = side(size)?;
    each_picture(images, s, s, |picture| {
        let (w, h) = picture.dimensions();
        let square = w.min(h);
        let cut = image::imageops::crop_imm(picture, (w - square) / 2, (h - square) / 2, square, square);
        resize(&cut.to_image(), s, s, Filter::Bicubic)
    })
}

fn side(size: i64) -> Result<u32> {
    let found = u32::try_from(size).ok().filter(|&s| s > 0);
    found.ok_or_else(|| wrong_size("size to resize to", size, size))
}

/// A batch of one size, resized image by image to `height` × `width`.
fn each_picture(
    images: &ImagesU8,
    height: u32,
    width: u32,
    resize: impl Fn(&RgbImage) -> RgbImage + Sync,
) -> Result<ImagesU8> {
    let bytes: Vec<Vec<u8>> = pictures(images)?.par_iter().map(|p| resize(p).into_raw()).collect();
    let nhwc = Tensor::from_slice(&bytes.concat()).view([-1, i64::from(height), i64::from(width), 3]);
    let nchw = nhwc.permute([0, 3, 1, 2]).contiguous().to_device(images.tensor().device());
    Ok(ImagesU8::new(nchw)?)
}

/// The images of a batch, one by one.
fn pictures(images: &ImagesU8) -> Result<Vec<RgbImage>> {
    let nhwc = images.tensor().permute([0, 2, 3, 1]).contiguous().to_device(Device::Cpu);
    let (n, h, w, _) = nhwc.size4()?;
    let bytes = Vec::<u8>::try_from(nhwc.view(-1))?;
    let (Ok(width), Ok(height), true) = (u32::try_from(w), u32::try_from(h), n * h * w > 0) else {
        return Err(wrong_size("images", h, w));
    };
    let picture = |bytes: &[u8]| RgbImage::from_raw(width, height, bytes.to_vec());
    let all: Option<Vec<RgbImage>> = bytes.chunks_exact((h * w * 3) as usize).map(picture).collect();
    all.ok_or_else(|| wrong_size("images", h, w))
}

fn wrong_size(what: &'static str, height: i64, width: i64) -> Error {
    Error::Input { what, expected: "at least one pixel".into(), found: format!("{height}x{width}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(columns: i64) -> Tensor {
        Tensor::arange(columns, (Kind::Float, Device::Cpu)).view([1, 1, 1, columns])
    }

    fn row(t: &Tensor) -> Vec<f32> {
        Vec::try_from(t.view(-1)).unwrap()
    }

    #[test]
    fn the_two_bilinear_resizes_differ_as_they_should() {
        assert_eq!(row(&tf1_bilinear(&ramp(2), 1, 4)), [0.0, 0.5, 1.0, 1.0]);
        assert_eq!(row(&half_pixel_bilinear(&ramp(2), 1, 4)), [0.0, 0.25, 0.75, 1.0]);
    }

    #[test]
    fn resizing_to_the_same_size_changes_nothing_and_constants_stay() {
        let x = Tensor::rand([2, 3, 7, 9], (Kind::Float, Device::Cpu)) * 255.0;
        let kinds: [fn(&Tensor, i64, i64) -> Tensor; 4] =
            [tf1_bilinear, half_pixel_bilinear, half_pixel_bicubic, pillow_bicubic_float];
        for method in kinds {
            assert_eq!(method(&x, 7, 9), x);
            let constant = Tensor::full([1, 3, 8, 5], 77.0, (Kind::Float, Device::Cpu));
            let off = (method(&constant, 5, 11) - 77.0).abs().max().double_value(&[]);
            assert!(off < 1e-4, "{off}");
        }
    }

    #[test]
    fn a_batch_is_resized_image_by_image() {
        let x = (Tensor::rand([3, 3, 20, 31], (Kind::Float, Device::Cpu)) * 255.0).to_kind(Kind::Uint8);
        let all = pillow_bicubic(&ImagesU8::new(x.shallow_clone()).unwrap(), 14, 8).unwrap();
        let last = pillow_bicubic(&ImagesU8::new(x.narrow(0, 2, 1)).unwrap(), 14, 8).unwrap();
        assert_eq!(all.tensor().narrow(0, 2, 1), *last.tensor());
        assert!(pillow_bicubic(&ImagesU8::new(x).unwrap(), 0, 8).is_err());
    }

    #[test]
    fn squares_are_cut_from_the_middle() {
        // Columns 0, 10, …, 60 of one height: the middle square of 3 is 20, 30, 40.
        let columns = Tensor::arange_start_step(0, 70, 10, (Kind::Uint8, Device::Cpu));
        let stored =
            ImagesU8::new(columns.view([1, 1, 1, 7]).expand([1, 3, 3, 7], false).contiguous()).unwrap();
        for cut in [pillow_short_side(&stored, 3).unwrap(), pillow_centre_square(&stored, 3).unwrap()] {
            let row = Vec::<u8>::try_from(cut.tensor().select(0, 0).select(0, 0).select(0, 0)).unwrap();
            assert_eq!(row, [20, 30, 40]);
        }
    }
}
