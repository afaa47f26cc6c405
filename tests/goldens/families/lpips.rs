//! LPIPS: distances, their parts, gradients, and the features that are compared.

use anyhow::{Context, Result, ensure};
use backbones::{HeadDropout, Lpips, LpipsNet, WeightSource};
use base::ImagesU8;
use tch::{Device, Kind, Tensor};

use crate::check::{Check, Near, Rule, value};
use crate::recipe::Recipe;

/// Spatial means of maps (B, C, H, W).
fn place_mean(map: &Tensor) -> Tensor {
    map.mean_dim([2i64, 3].as_slice(), false, Kind::Float)
}

/// The training loss's module: weights in a table, one tensor for each part.
pub fn check_loss(check: &mut Check) -> Result<()> {
    let table = check.golden.get("recipe_table");
    let recipe = Recipe::new(&table["seed"], &table["tensors"], "")?;
    let lpips = Lpips::load(&recipe, &recipe, LpipsNet::Vgg, Device::Cpu)?;
    let a = check.input("a")?;
    let b = check.input("b")?.set_requires_grad(true);
    let column = |t: &Tensor| t.view([-1, 1, 1, 1]);

    let distance = lpips.forward(&a, &b);
    check.compare("lpips", Rule::Values, || column(&distance))?;
    check.scalar("lpips_mean", Near::Loss, value(&distance.mean(Kind::Float)))?;
    let gradient = Tensor::run_backward(&[&distance.mean(Kind::Float)], &[&b], true, false);
    check.compare("grad_b", Rule::Gradient, || gradient[0].shallow_clone())?;
    check.compare("scaled_a", Rule::Values, || lpips.scaled(&a))?;
    let each = lpips.per_tap(&a, &b, HeadDropout::Off);
    for (k, tap) in (0..).zip(&lpips.taps(&a)) {
        check.compare(&format!("layer{k}"), Rule::Values, || column(&each.select(1, k)))?;
        check.compare(&format!("feat{k}_mean"), Rule::Values, || place_mean(tap))?;
    }
    Ok(())
}

/// The metric, over any of its networks: weights by the seed and the tensors' names, 8-bit images.
pub fn check_metric(check: &mut Check) -> Result<()> {
    let seed = check.golden.get("seed").as_u64().context("no seed")?;
    let images = |t: Tensor| -> Result<Tensor> {
        Ok(ImagesU8::new(t.permute([0, 3, 1, 2]).contiguous())?.to_float().into_tensor())
    };
    let (a, b) = (images(check.input("img0")?)?, images(check.input("img1")?)?);
    let mut found = 0;
    for net in LpipsNet::ALL {
        let name = net.name().trim_start_matches("lpips-");
        if !check.golden.has(&format!("{name}.distance")) {
            continue;
        }
        found += 1;
        let source = WeightSource::Random { seed };
        let (lpips, _) = Lpips::open_with_id(&source, &source, net, Device::Cpu)?;
        let taps = lpips.taps(&a);
        check.compare(&format!("{name}.distance"), Rule::Values, || lpips.forward(&a, &b))?;
        let each = || lpips.per_tap(&a, &b, HeadDropout::Off);
        check.compare(&format!("{name}.per_layer"), Rule::Values, each)?;
        let means: Vec<Tensor> = taps.iter().map(place_mean).collect();
        check.compare(&format!("{name}.tap_mean"), Rule::Values, || Tensor::cat(&means, 1))?;
        for (k, tap) in taps.iter().enumerate() {
            // The first channels of the first image.
            let part = format!("{name}.tap{k}_img0");
            let Some(channels) = check.golden.shape(&part).and_then(|s| s.get(1).copied()) else { continue };
            check.compare(&part, Rule::Values, || tap.narrow(0, 0, 1).narrow(1, 0, channels))?;
        }
        let single = format!("{name}.max_rel_diff_f32");
        check.skip(&single, "it tells how far the reference's own fp32 run was from its float64 run");
    }
    ensure!(found > 0, "no network of LPIPS is compared");
    Ok(())
}
