//! The whole loss of the tokenizer's training: the generator's phase, then the discriminator's.

use anyhow::{Context, Result, ensure};
use backbones::{HeadDropout, Lpips, LpipsNet};
use base::{Build, Mode, Vars};
use tch::{Device, Kind, Tensor};
use tokenizer::Loaded;
use train::discriminator::PatchGan;
use train::losses::adversarial::{hinge_discriminator, hinge_generator};
use train::losses::lecam::LeCam;
use train::losses::perceptual::{LpipsLoss, PerceptualLoss};
use train::losses::{reconstruction, semantic};
use train::optim::global_norm;

use super::patchgan::{build, compare_buffers};
use super::tokenizer::{compare_gradients, feature_loss, open};
use crate::check::{Check, Near, Rule, value};
use crate::golden::Golden;
use crate::recipe::Recipe;
use crate::run::number_after;

/// Strided layers; the manifest does not state the official default.
const LAYERS: i64 = 3;

/// Shared inputs of both phases.
struct Setting {
    loaded: Loaded,
    tokenizer: Golden,
    image: Tensor,
    lpips: LpipsLoss,
    network: PatchGan,
    vars: Vars,
}

/// The whole golden: two calls of the discriminator by the generator's phase (fake, direct), three
/// by its own (real, fake, direct), and one by the generator's phase after the auxiliary terms.
pub fn check(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    let tokenizer = golden.sibling(golden.text("tokenizer_weights")?.trim_end_matches(".pt"))?;
    let table = golden.get("recipe_table");
    let (network, vars) = build(
        golden.integer("disc_dim")?,
        LAYERS,
        &table["seed"],
        &table["discriminator"],
        "discriminator.",
    )?;
    let setting = Setting {
        loaded: open(&tokenizer)?,
        image: tokenizer.tensor("image")?,
        tokenizer,
        lpips: lpips(golden)?,
        network,
        vars,
    };
    let (fake, direct) = generator(check, &setting)?;
    setting.vars.parameters().iter_mut().for_each(|v| v.tensor.zero_grad());
    discriminator(check, &setting, &fake, &direct)?;
    let late = tch::no_grad(|| generator_total(check, &setting, false))?.0;
    check.scalar("gen_total_late", Near::Loss, value(&late))
}

/// "names, shapes and bounds as in NAME.json, with this seed".
fn lpips(golden: &Golden) -> Result<LpipsLoss> {
    let table = golden.get("recipe_table");
    let text = table["lpips"].as_str().context("recipe_table.lpips")?;
    let (_, rest) = text.split_once("as in ").context("recipe_table.lpips names no golden")?;
    ensure!(text.contains("with this seed"), "another seed for LPIPS");
    let other = golden.sibling(rest.split(".json").next().unwrap_or(""))?;
    let recipe = Recipe::new(&table["seed"], &other.get("recipe_table")["tensors"], "")?;
    let network = Lpips::load(&recipe, &recipe, LpipsNet::Vgg, Device::Cpu)?;
    Ok(LpipsLoss { network, dropout: HeadDropout::Off })
}

/// The generator's loss with or without the auxiliary terms, and both reconstructions.
fn generator_total(check: &mut Check, s: &Setting, auxiliary: bool) -> Result<(Tensor, Tensor, Tensor)> {
    let golden = check.golden;
    let out = s.loaded.model.forward_train(&s.image, Mode::Train, true);
    let direct = out.direct.as_ref().context("no direct reconstruction")?.shallow_clone();
    let fake = out.reconstruction.shallow_clone();
    let (weight, perceptual) = (golden.number("disc_weight")?, golden.number("perceptual_weight")?);
    let distance = |image: &Tensor| s.lpips.distance(&s.image, image);
    let judged = |image: &Tensor| {
        let near = distance(image);
        let seen = hinge_generator(&s.network.forward(image, Mode::Train));
        reconstruction::l2(&s.image, image) + &near * perceptual + seen * weight
    };
    let mut total = judged(&fake);
    for loss in ["codebook", "commitment", "entropy"].iter().filter_map(|name| out.losses.get(name)) {
        total += loss;
    }
    if let (Some(aligned), true) = (&out.aligned, s.tokenizer.has("sem_feat")) {
        let teacher = s.tokenizer.tensor("sem_feat")?;
        total += semantic::alignment(aligned, &teacher) * golden.number("proj_weight")?;
    }
    if auxiliary {
        total = total + judged(&direct) + feature_loss(&s.tokenizer, &out)?;
    }
    Ok((total, fake, direct))
}

fn generator(check: &mut Check, s: &Setting) -> Result<(Tensor, Tensor)> {
    s.loaded.vars.set_requires_grad(true);
    let (total, fake, direct) = generator_total(check, s, true)?;
    check.compare("reconstruction", Rule::Bounded, || fake.shallow_clone())?;
    check.compare("direct_reconstruction", Rule::Bounded, || direct.shallow_clone())?;
    for (name, image) in [("lpips_reconstruction", &fake), ("lpips_direct", &direct)] {
        let distance = tch::no_grad(|| s.lpips.distance(&s.image, image));
        check.scalar(name, Near::Loss, value(&distance))?;
    }
    check.scalar("gen_total", Near::Loss, value(&total))?;
    total.backward();
    compare_gradients(check, "grad.", |name| s.loaded.vars.get(name))?;
    let gradients: Vec<Tensor> = s.loaded.vars.parameters().iter().map(|v| v.tensor.grad()).collect();
    check.scalar("gen_grad_norm", Near::GradientNorm, value(&global_norm(&gradients)))?;
    Ok((fake.detach(), direct.detach()))
}

fn discriminator(check: &mut Check, s: &Setting, fake: &Tensor, direct: &Tensor) -> Result<()> {
    let golden = check.golden;
    let real = s.network.forward(&s.image, Mode::Train);
    let fake = s.network.forward(fake, Mode::Train);
    let direct = s.network.forward(direct, Mode::Train);

    let meaning = golden.meaning("disc_total");
    let step = number_after(meaning, "at step")? as u64;
    let weight = golden.number("disc_weight")?;
    let mut total = hinge_discriminator(&real, &fake) * weight + hinge_discriminator(&real, &direct) * weight;
    if golden.config("lecam") == true {
        let averages = Vars::new(Device::Cpu, Kind::Double, Build::Random);
        let state = LeCam::new(&averages.root(), number_after(meaning, "start iteration")? as u64);
        ensure!(meaning.contains("the values of the second hinge call"), "other LeCam averages");
        state.update(&real, &fake, step);
        state.update(&real, &direct, step);
        total += state.penalty(&real, &fake) * golden.number("lecam_weight")?;
    }
    check.scalar("disc_total", Near::Loss, value(&total))?;
    total.backward();
    compare_gradients(check, "grad_disc.", |name| s.vars.get(name))?;
    compare_buffers(check, "disc_buffer_after.", &s.vars)
}
