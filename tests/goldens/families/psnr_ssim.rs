//! PSNR and SSIM as the official reconstruction scripts call them.

use anyhow::Result;
use base::{Images, ImagesU8};
use eval::{DataRange, psnr, ssim};

use crate::check::{Check, Near};

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let mut i = 0;
    while check.golden.has(&format!("gt{i}")) {
        // (H, W, 3) in [0, 1] and u8.
        let original = check.input(&format!("gt{i}"))?.permute([2, 0, 1]).unsqueeze(0);
        let original = Images::new(original * 2.0 - 1.0)?;
        let sample = check.input(&format!("sample{i}"))?.permute([2, 0, 1]).unsqueeze(0);
        let sample = ImagesU8::new(sample)?;
        check.scalar(&format!("psnr{i}"), Near::Within(1e-4), psnr(&sample, &original)?[0])?;
        let published = ssim(&sample, &original, DataRange::Published)?[0];
        check.scalar(&format!("ssim{i}"), Near::Within(1e-5), published)?;
        i += 1;
    }
    let golden = check.golden;
    let names = golden.tensor_names().into_iter().chain(golden.scalar_names());
    for name in names.filter(|n| n.starts_with("fid")) {
        check.skip(name, "the Fréchet distance is not part of this program yet");
    }
    Ok(())
}
