//! The adversarial part of the tokenizer's training loss. The generator's total has an LPIPS term, which is not
//! part of this program yet.

use anyhow::{Context, Result, ensure};
use base::{Build, Mode, Vars};
use tch::{Device, Kind, Tensor};
use train::losses::adversarial::hinge_discriminator;
use train::losses::lecam::LeCam;

use super::patchgan::{build, compare_buffers};
use super::tokenizer::{compare_gradients, open};
use crate::check::{Check, Near, Rule, value};
use crate::run::number_after;

/// Strided layers; the manifest does not state the official default.
const LAYERS: i64 = 3;

/// Everything without LPIPS.
pub fn check(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    let model = golden.text("tokenizer_weights")?.trim_end_matches(".pt");
    let sibling = golden.sibling(model)?;
    let loaded = open(&sibling)?;
    let image = sibling.tensor("image")?;
    let out = tch::no_grad(|| loaded.model.forward_train(&image, Mode::Train, true));
    let direct = out.direct.context("no direct reconstruction")?;
    check.compare("reconstruction", Rule::Bounded, || out.reconstruction.shallow_clone())?;
    check.compare("direct_reconstruction", Rule::Bounded, || direct.shallow_clone())?;
    discriminator(check, &image, &out.reconstruction, &direct)?;

    let why = "it contains an LPIPS term, and LPIPS is not part of this program yet";
    let with_lpips = |n: &&str| n.starts_with("gen_") || n.starts_with("lpips_") || n.starts_with("grad.");
    let names = golden.tensor_names().into_iter().chain(golden.scalar_names());
    names.filter(with_lpips).for_each(|n| check.skip(n, why));
    Ok(())
}

/// Two calls of the generator's phase (fake, direct), then three of the discriminator's (real, fake, direct).
fn discriminator(check: &mut Check, real: &Tensor, fake: &Tensor, direct: &Tensor) -> Result<()> {
    let golden = check.golden;
    let table = golden.get("recipe_table");
    let (network, vars) = build(
        golden.integer("disc_dim")?,
        LAYERS,
        &table["seed"],
        &table["discriminator"],
        "discriminator.",
    )?;
    for image in [fake, direct] {
        drop(tch::no_grad(|| network.forward(image, Mode::Train)));
    }
    let real = network.forward(real, Mode::Train);
    let fake = network.forward(fake, Mode::Train);
    let direct = network.forward(direct, Mode::Train);

    let meaning = golden.meaning("disc_total");
    let step = number_after(meaning, "at step")? as u64;
    let weight = golden.number("disc_weight")?;
    let mut total = hinge_discriminator(&real, &fake) * weight + hinge_discriminator(&real, &direct) * weight;
    if golden.config("lecam") == true {
        let buffers = Vars::new(Device::Cpu, Kind::Double, Build::Random);
        let mut state = LeCam::new(&buffers.root(), number_after(meaning, "start iteration")? as u64);
        ensure!(meaning.contains("the values of the second hinge call"), "other LeCam averages");
        state.update(&real, &fake, step);
        state.update(&real, &direct, step);
        total += state.penalty(&real, &fake) * golden.number("lecam_weight")?;
    }
    check.scalar("disc_total", Near::Loss, value(&total))?;
    total.backward();
    compare_gradients(check, "grad_disc.", |name| vars.get(name))?;
    compare_buffers(check, "disc_buffer_after.", &vars)
}
