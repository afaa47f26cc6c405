//! The PatchGAN discriminator and the adversarial losses.

use anyhow::{Result, ensure};
use base::{Build, Mode, Vars};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use train::discriminator::{PatchGan, PatchGanConfig};
use train::losses::adversarial::{
    adaptive_weight, adopt_weight, hinge_discriminator, hinge_generator, vanilla_discriminator,
};
use train::losses::lecam::LeCam;
use train::losses::reconstruction::l2;

use super::tokenizer::compare_gradients;
use crate::check::{Check, Near, Rule, value};
use crate::recipe::Recipe;
use crate::run::number_after;

/// Batch norms start from their usual statistics, which recipe tables leave out.
const STATISTICS: [&str; 3] = ["main.*.running_mean", "main.*.running_var", "main.*.num_batches_tracked"];

/// A discriminator with weights by recipe.
pub fn build(
    channels: i64,
    layers: i64,
    seed: &Value,
    table: &Value,
    prefix: &str,
) -> Result<(PatchGan, Vars)> {
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    let network = PatchGan::new(&vars.root(), &PatchGanConfig { channels, layers });
    Recipe::new(seed, table, prefix)?.load(&vars, &STATISTICS)?;
    vars.set_requires_grad(true);
    Ok((network, vars))
}

/// Compares every tensor whose name is `prefix` and a buffer's name.
pub fn compare_buffers(check: &mut Check, prefix: &str, vars: &Vars) -> Result<()> {
    for name in check.golden.tensor_names() {
        if let Some(buffer) = name.strip_prefix(prefix).and_then(|n| vars.get(n)) {
            let rule = if buffer.kind() == Kind::Int64 { Rule::Equal } else { Rule::Values };
            check.compare(name, rule, || buffer)?;
        }
    }
    Ok(())
}

/// The whole golden; the calls are in the official order, since each moves the batch statistics.
pub fn check(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    ensure!(golden.text("norm")? == "batch" && golden.integer("kw")? == 4, "another PatchGAN");
    let table = golden.get("recipe_table");
    let (channels, layers) = (golden.integer("ndf")?, golden.integer("n_layers")?);
    let (network, vars) = build(channels, layers, &table["seed"], &table["tensors"], "")?;
    let real = check.input("real")?;
    let fake = check.input("fake")?.set_requires_grad(true);

    let logits_real = network.forward(&real, Mode::Train);
    let logits_fake = network.forward(&fake, Mode::Train);
    check.compare("logits_real", Rule::Values, || logits_real.shallow_clone())?;
    check.compare("logits_fake", Rule::Values, || logits_fake.shallow_clone())?;
    compare_buffers(check, "buffer_after.", &vars)?;
    losses(check, &logits_real, &logits_fake)?;

    let gradient = Tensor::run_backward(&[&hinge_generator(&logits_fake)], &[&fake], true, false);
    check.compare("grad_gen_fake", Rule::Gradient, || gradient[0].shallow_clone())?;
    hinge_discriminator(&logits_real, &logits_fake).backward();
    compare_gradients(check, "grad_d.", |name| vars.get(name))?;

    adaptive(check, &network, &real, &fake.detach())?;
    compare_buffers(check, "buffer_after3.", &vars)?;
    check.compare("logits_real_eval", Rule::Values, || network.forward(&real, Mode::Eval))?;
    lecam(check, &logits_real.detach(), &logits_fake.detach())
}

fn losses(check: &mut Check, real: &Tensor, fake: &Tensor) -> Result<()> {
    check.scalar("hinge_d_loss", Near::Loss, value(&hinge_discriminator(real, fake)))?;
    check.scalar("vanilla_d_loss", Near::Loss, value(&vanilla_discriminator(real, fake)))?;
    check.scalar("hinge_gen_loss", Near::Loss, value(&hinge_generator(fake)))?;
    let why = "input and target of the cross-entropy are swapped upstream; this program has the right loss";
    for name in ["non_saturating_d_loss_as_written", "non_saturating_gen_loss_as_written"] {
        if check.golden.scalar_names().contains(&name) {
            check.skip(name, why);
        }
    }
    if let Ok(weight) = check.golden.scalar("adopt_weight.at") {
        check.scalar("adopt_weight.before", Near::Equal, adopt_weight(weight, 9, 10))?;
        check.scalar("adopt_weight.at", Near::Equal, adopt_weight(weight, 10, 10))?;
    }
    Ok(())
}

/// The adaptive weight on a stand-in for the decoder's last layer: image = conv(fake, w).
fn adaptive(check: &mut Check, network: &PatchGan, real: &Tensor, fake: &Tensor) -> Result<()> {
    let last = check.input("adaptive.last_layer")?.set_requires_grad(true);
    let image = fake.conv2d(&last, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
    let nll = l2(real, &image);
    let generator = hinge_generator(&network.forward(&image, Mode::Train));
    check.scalar("adaptive.nll", Near::Loss, value(&nll))?;
    check.scalar("adaptive.gen", Near::Loss, value(&generator))?;
    check.scalar("adaptive.weight", Near::Loss, value(&adaptive_weight(&nll, &generator, &last)))
}

/// "rows (iteration, hinge_d_loss, ema.D_real, ema.D_fake, lecam_reg) … with logits
/// real+A*(it-S), fake-B*(it-S); … from iteration S on".
fn lecam(check: &mut Check, real: &Tensor, fake: &Tensor) -> Result<()> {
    if !check.golden.has("lecam") {
        return Ok(());
    }
    let meaning = check.golden.meaning("lecam").to_owned();
    let (up, down) = (number_after(&meaning, "logits real+")?, number_after(&meaning, "fake-")?);
    let start = number_after(&meaning, "from iteration")?;
    let rows = Vec::<Vec<f64>>::try_from(check.golden.tensor("lecam")?)?;
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    let state = LeCam::new(&vars.root(), start as u64);
    let mut found = vec![];
    for row in &rows {
        let iteration = row[0];
        let real = real + up * (iteration - start);
        let fake = fake - down * (iteration - start);
        state.update(&real, &fake, iteration as u64);
        let hinge = value(&hinge_discriminator(&real, &fake));
        found.push([
            iteration,
            hinge,
            value(&state.real),
            value(&state.fake),
            value(&state.penalty(&real, &fake)),
        ]);
    }
    check.compare("lecam", Rule::Values, || Tensor::from_slice2(&found))
}
