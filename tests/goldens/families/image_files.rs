//! Crops as Pillow makes them, and bytes in and out of networks.

use anyhow::{Context, Result, ensure};
use base::{Images, ImagesU8};
use image::RgbImage;
use tch::{Kind, Tensor};

use super::tokenizer::to_u8;
use crate::check::{Check, Rule};

/// u8 (H, W, 3) → picture.
fn picture(t: &Tensor) -> Result<RgbImage> {
    let size = t.size();
    ensure!(size.len() == 3 && size[2] == 3 && t.kind() == Kind::Uint8, "not a picture: {size:?}");
    let bytes = Vec::<u8>::try_from(t.reshape([-1]))?;
    RgbImage::from_raw(size[1] as u32, size[0] as u32, bytes).context("three bytes a pixel")
}

/// Picture → u8 (H, W, 3).
fn tensor(p: &RgbImage) -> Tensor {
    Tensor::from_slice(p.as_raw()).view([i64::from(p.height()), i64::from(p.width()), 3])
}

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let size = check.golden.integer("image_size")? as u32;
    let mut i = 0;
    while check.golden.has(&format!("in{i}")) {
        let image = picture(&check.input(&format!("in{i}"))?)?;
        let center = tensor(&data::transform::center_crop(&image, size));
        // ToTensor and Normalize(0.5, 0.5).
        let chw = center.permute([2, 0, 1]).unsqueeze(0);
        let normalized = ImagesU8::new(chw)?.to_float().into_tensor().squeeze_dim(0);
        check.compare(&format!("tensor{i}"), Rule::Values, || normalized)?;
        check.compare(&format!("center{i}"), Rule::Equal, || center)?;
        if check.golden.has(&format!("random{i}")) {
            let draws = Vec::<i64>::try_from(check.input(&format!("random{i}.draws"))?)?;
            let [short, y, x] = draws.try_into().ok().context("three draws")?;
            let random = data::transform::crop_at(&image, size, short as u32, y as u32, x as u32);
            check.compare(&format!("random{i}"), Rule::Equal, || tensor(&random))?;
        }
        i += 1;
    }
    if check.golden.has("post_in") {
        let bytes = to_u8(Images::new(check.input("post_in")?)?.tensor())?;
        check.compare("post_u8", Rule::Pixels, || bytes)?;
    }
    Ok(())
}
