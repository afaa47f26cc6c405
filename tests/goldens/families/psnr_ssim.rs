//! PSNR and SSIM as used by the official reconstruction scripts, and the Fréchet distance of the
//! official evaluator.

use anyhow::Result;
use base::{Images, ImagesU8};
use eval::{DataRange, PixelPair, Window, frechet_of_features, psnr, ssim};

use crate::check::{Check, Near};

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let mut i = 0;
    while check.golden.has(&format!("gt{i}")) {
        // (H, W, 3) in [0, 1] and u8.
        let original = check.input(&format!("gt{i}"))?.permute([2, 0, 1]).unsqueeze(0);
        let original = Images::new(original * 2.0 - 1.0)?;
        let sample = check.input(&format!("sample{i}"))?.permute([2, 0, 1]).unsqueeze(0);
        let pair = PixelPair::published(&ImagesU8::new(sample)?, &original)?;
        check.scalar(&format!("psnr{i}"), Near::Within(1e-4), psnr(&pair)?[0])?;
        let published = ssim(&pair, DataRange::Published, Window::Uniform)?[0];
        check.scalar(&format!("ssim{i}"), Near::Within(1e-5), published)?;
        i += 1;
    }
    if check.golden.has("fid.a") {
        let (a, b) = (check.input("fid.a")?, check.input("fid.b")?);
        check.scalar("fid", Near::Relative(1e-6), frechet_of_features(&a, &b)?)?;
        check.scalar("fid_self", Near::Within(1e-8), frechet_of_features(&a, &a)?)?;
    }
    Ok(())
}
