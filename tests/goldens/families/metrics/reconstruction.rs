//! Scores of reconstructions, by GigaTok's conventions.

use anyhow::{Context, Result};
use backbones::{Lpips, LpipsNet, WeightSource};
use base::{Images, ImagesU8};
use eval::{DataRange, PixelMetrics, PixelPair, Reconstruction, Window, psnr, ssim};
use tch::{Device, Kind, Tensor};

use crate::check::{Check, Near, Rule};

/// The whole golden: LPIPS's weights by the seed and the tensors' names.
pub fn check(check: &mut Check) -> Result<()> {
    let seed = check.golden.get("seed").as_u64().context("no seed")?;
    let nchw = |t: Tensor| ImagesU8::new(t.permute([0, 3, 1, 2]).contiguous());
    let originals = nchw(check.input("img")?)?;
    let x = Images::new(check.input("x")?)?;
    check.must("x", originals.to_float().tensor() == x.tensor(), "the normalised originals".into());
    let exact = x.to_u8().tensor() == originals.tensor();
    check.scalar("roundtrip_exact", Near::Equal, f64::from(u8::from(exact)))?;

    let decoded = Images::new(check.input("rec")?)?;
    let sample = decoded.to_u8();
    check.compare("sample", Rule::Equal, || sample.tensor().permute([0, 2, 3, 1]).contiguous())?;
    let pair = PixelPair::published(&sample, &x)?;
    let list = |values: &[f64]| Tensor::from_slice(values);
    check.compare("psnr", Rule::Within(1e-5), || list(&psnr(&pair).unwrap_or_default()))?;
    for (name, range) in [("ssim_dr1", DataRange::Unit), ("ssim_dr2", DataRange::Published)] {
        let found = ssim(&pair, range, Window::Uniform)?;
        check.compare(name, Rule::Within(5e-6), || list(&found))?;
    }
    let mut sums = Reconstruction::default();
    sums.update(&pair, PixelMetrics::ALL)?;
    let means = sums.means().context("no images")?;
    check.scalar("psnr_mean", Near::Within(1e-5), means.psnr)?;
    check.scalar("ssim_dr2_mean", Near::Within(5e-6), means.ssim_published.context("no SSIM")?)?;

    let source = WeightSource::Random { seed };
    let (lpips, _) = Lpips::open_with_id(&source, &source, LpipsNet::Vgg, Device::Cpu)?;
    let distance = lpips.distance(&x, &decoded)?.to_kind(Kind::Double);
    check.compare("lpips_vgg", Rule::Relative(1e-5), || distance)
}
