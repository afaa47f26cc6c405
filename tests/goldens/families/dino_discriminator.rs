//! The DINO discriminator: what its heads read, its logits, their gradients.

use anyhow::{Context, Result, ensure};
use backbones::DinoVit;
use base::testing::recipe_tensor;
use base::{Build, Mode, Vars};
use tch::{Device, Kind, Tensor};
use train::discriminator::{DinoConfig, DinoDiscriminator, View};

use super::patchgan::compare_buffers;
use super::tokenizer::compare_gradients;
use crate::check::{Check, Rule};
use crate::golden::Golden;
use crate::recipe::Recipe;
use crate::run::number_after;

/// The whole golden, in the order of the official calls: a training pass, then evaluation.
pub fn check(check: &mut Check) -> Result<()> {
    let (network, vars) = build(check.golden)?;
    let image = check.input("image_small")?.set_requires_grad(true);
    let features = tch::no_grad(|| network.features(&image, View::Whole, Kind::Float));
    for (i, feature) in features.iter().enumerate() {
        let mean = feature.mean_dim([2i64].as_slice(), false, Kind::Float);
        check.compare(&format!("activation{i}_mean"), Rule::Values, || mean)?;
    }
    if let (Some(last), true) = (features.last(), check.golden.has("activation_last")) {
        let tokens = check.golden.tensor("activation_last")?.size()[2];
        check.compare("activation_last", Rule::Values, || last.narrow(2, 0, tokens))?;
    }
    let logits = network.forward(&image, View::Whole, Kind::Float, Mode::Train);
    check.compare("logits_train", Rule::Bounded, || logits.shallow_clone())?;
    compare_buffers(check, "after.", &vars)?;
    (-logits.mean(Kind::Float)).backward();
    check.compare("grad_image", Rule::Gradient, || image.grad())?;
    compare_gradients(check, "grad.", |name| vars.get(name))?;

    let evaluate = |x: &Tensor| tch::no_grad(|| network.forward(x, View::Whole, Kind::Float, Mode::Eval));
    check.compare("logits_eval", Rule::Bounded, || evaluate(&image))?;
    if check.golden.has("logits_eval_area") {
        let big = large_input(check.golden)?;
        check.compare("logits_eval_area", Rule::Bounded, || evaluate(&big))?;
    }
    Ok(())
}

fn build(golden: &Golden) -> Result<(DinoDiscriminator, Vars)> {
    ensure!(golden.text("norm_type")? == "bn" && golden.number("norm_eps")? == 1e-6, "other norms");
    ensure!(golden.config("using_spec_norm") == true, "no spectral norm");
    let config = DinoConfig {
        weights: None,
        width: golden.integer("embed_dim")?,
        heads: golden.integer("num_heads")?,
        depth: golden.integer("depth")?,
        taps: serde_json::from_value(golden.config("key_depths").clone()).context("config.key_depths")?,
        image_size: golden.integer("img_size")?,
        patch_size: golden.integer("patch_size")?,
        kernel: golden.integer("ks")?,
    };
    let tables = golden.get("recipe_tables");
    let backbone = Recipe::new(&tables["seed"], &tables["frozen_vit"], "dino.")?;
    let backbone = DinoVit::open(config.backbone(), &backbone, Device::Cpu)?;
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    let network = DinoDiscriminator::with_backbone(&vars.root(), &config, backbone);
    Recipe::new(&tables["seed"], &tables["heads"], "disc.")?.load(&vars, &[])?;
    vars.set_requires_grad(true);
    Ok((network, vars))
}

/// "clamp(bilinear(recipe 'A' BxCxhxw in [lo,hi]) + recipe 'B' in [lo,hi], -1, 1), size N,
/// align_corners false, same seed".
fn large_input(golden: &Golden) -> Result<Tensor> {
    let meaning = golden.meaning("logits_eval_area");
    ensure!(meaning.contains("align_corners false") && meaning.contains(", -1, 1)"), "another large input");
    let seed = golden.get("recipe_tables")["seed"].as_u64().context("no seed")?;
    let size = number_after(meaning, "size ")? as i64;
    let mut recipes = meaning.split("recipe '").skip(1);
    let mut next = || -> Result<(&str, &str, f64, f64)> {
        let (name, rest) = recipes.next().and_then(|r| r.split_once('\'')).context("no recipe")?;
        let (shape, bounds) = rest.split_once("in [").context("no bounds")?;
        let (lo, hi) = bounds.split_once(']').and_then(|b| b.0.split_once(',')).context("no bounds")?;
        Ok((name, shape.trim(), lo.parse()?, hi.parse()?))
    };
    let (name, shape, lo, hi) = next()?;
    let shape: Vec<i64> = shape.split('x').map(str::parse).collect::<Result<_, _>>().context("shape")?;
    let low = recipe_tensor(name, seed, &shape, lo, hi);
    let (name, _, lo, hi) = next()?;
    let noise = recipe_tensor(name, seed, &[shape[0], shape[1], size, size], lo, hi);
    Ok((low.upsample_bilinear2d([size, size], false, None, None) + noise).clamp(-1.0, 1.0))
}
