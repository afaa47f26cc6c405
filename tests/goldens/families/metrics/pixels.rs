//! PSNR and SSIM of stored images, with every range and window that public tools use.

use anyhow::Result;
use base::ImagesU8;
use eval::{DataRange, PixelPair, Window, psnr, ssim, ssim_map};
use tch::{Device, Kind, Tensor};

use crate::check::{Check, Near};

/// The whole golden: images `p0.ref` and `p0a.img`, `p0b.img`, …
pub fn check(check: &mut Check) -> Result<()> {
    let names: Vec<String> = check.golden.tensor_names().into_iter().map(str::to_owned).collect();
    for name in names.iter().filter_map(|n| n.strip_suffix(".img")) {
        let original = name.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let (original, image) =
            (images(check, &format!("{original}.ref"))?, images(check, &format!("{name}.img"))?);
        one(check, name, &image, &original)?;
    }
    for name in names.iter().filter(|n| n.ends_with(".ref")) {
        let _ = check.input(name)?;
    }
    constants(check)
}

fn images(check: &mut Check, name: &str) -> Result<ImagesU8> {
    Ok(ImagesU8::new(check.input(name)?.permute([2, 0, 1]).unsqueeze(0))?)
}

fn one(check: &mut Check, name: &str, image: &ImagesU8, original: &ImagesU8) -> Result<()> {
    let at = |end: &str| format!("{name}.{end}");
    let exact = Near::Relative(1e-9);
    let stored = PixelPair::stored(image, original)?;
    let single = PixelPair::single_precision(image, original)?;
    let decibel = psnr(&stored)?[0];
    check.scalar(&at("psnr_u8"), exact, decibel)?;
    check.scalar(&at("mse_u8"), exact, 255.0f64.powi(2) / 10f64.powf(decibel / 10.0))?;
    check.scalar(&at("psnr_f01"), Near::Within(1e-5), psnr(&single)?[0])?;
    let unit = ssim(&stored, DataRange::Unit, Window::Uniform)?[0];
    check.scalar(&at("ssim_u8_dr255"), exact, unit)?;
    // Its images were divided by 255 in fp32 and only then turned to float64.
    check.scalar(&at("ssim_f64_dr1"), exact, ssim(&single, DataRange::Unit, Window::Uniform)?[0])?;
    let near = Near::Within(5e-6);
    check.scalar(&at("ssim_f01_dr1"), near, unit)?;
    check.scalar(&at("ssim_f01_dr2"), near, ssim(&stored, DataRange::Published, Window::Uniform)?[0])?;
    let map = ssim_map(&single, DataRange::Unit, Window::Uniform)?.get(0).get(0);
    check.scalar(&at("ssim_ch0_dr1"), exact, map.mean(Kind::Double).double_value(&[]))?;
    if check.golden.scalar_names().contains(&at("ssim_gauss_dr1").as_str()) {
        check.scalar(&at("ssim_gauss_dr1"), exact, ssim(&single, DataRange::Unit, Window::Gaussian)?[0])?;
    }
    whole_map(check, &at("ssim_map_ch0"), &map)
}

/// The golden's map also has the borders that are left out of the mean.
fn whole_map(check: &mut Check, name: &str, found: &Tensor) -> Result<()> {
    if check.golden.has(name) {
        let (h, w) = found.size2()?;
        let border = Window::Uniform.side() / 2;
        let expected = check.input(name)?.narrow(0, border, h).narrow(1, border, w);
        let off = (found - expected).abs().max().double_value(&[]);
        check.must(name, off <= 1e-9, format!("off by {off:.1e}"));
    }
    Ok(())
}

/// `constants_100_110.psnr_u8`: images of one value each.
fn constants(check: &mut Check) -> Result<()> {
    let grey = |v: i64| ImagesU8::new(Tensor::full([1, 3, 16, 16], v, (Kind::Uint8, Device::Cpu)));
    let names: Vec<String> = check.golden.scalar_names().into_iter().map(str::to_owned).collect();
    for name in names.iter().filter(|n| n.starts_with("constants_")) {
        let numbers = name.trim_start_matches("constants_").split('.').next().unwrap_or("");
        let values: Vec<i64> = numbers.split('_').map(str::parse).collect::<std::result::Result<_, _>>()?;
        let pair = PixelPair::stored(&grey(values[0])?, &grey(values[1])?)?;
        let found = match name.ends_with(".psnr_u8") {
            true => psnr(&pair)?[0],
            false => ssim(&pair, DataRange::Unit, Window::Uniform)?[0],
        };
        check.scalar(name, Near::Relative(1e-9), found)?;
    }
    let same = PixelPair::stored(&grey(77)?, &grey(77)?)?;
    check.scalar("identical.ssim", Near::Within(1e-12), ssim(&same, DataRange::Unit, Window::Uniform)?[0])
}
