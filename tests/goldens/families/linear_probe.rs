//! The head, the optimizer and the schedule of linear probes.

use anyhow::{Context, Result};
use tch::{Device, Kind, Reduction, Tensor};
use train::optim::{Lars, LarsConfig};
use train::probe::ProbeHead;
use train::schedule::EpochSchedule;

use crate::check::{Check, Near, Rule};
use crate::run::number_after;

/// Settings of the runs in the manifest.
struct Setup {
    features: Tensor, // (N, D)
    labels: Tensor,   // (N)
    batch: i64,
    steps_per_epoch: f64,
    schedule: EpochSchedule,
}

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let mut used = |name: &str| {
        check.skip(name, "a setting");
        check.golden.scalar(name)
    };
    let (lr, warmup, epochs) = (used("base_lr")?, used("warmup_epochs")?, used("epochs")?);
    let (steps_per_epoch, batch) = (used("steps_per_epoch")?, used("batch")? as i64);
    let setup = Setup {
        features: check.input("features")?,
        labels: check.input("labels")?,
        batch,
        steps_per_epoch,
        schedule: EpochSchedule { lr, warmup, epochs },
    };
    let losses = check.golden.tensor_names().into_iter();
    let runs: Vec<String> = losses.filter_map(|n| n.strip_suffix(".losses")).map(str::to_owned).collect();
    for run in runs {
        train_head(check, &setup, &run)?;
    }
    published_schedule(check)
}

/// `wd0` and `wd01` are runs with a weight decay of 0 and of 0.1.
fn weight_decay(run: &str) -> Result<f64> {
    let digits = run.strip_prefix("wd").filter(|d| d.starts_with('0'));
    let digits = digits.with_context(|| format!("`{run}` names no weight decay"))?;
    Ok(format!("0.{}", &digits[1..]).parse().unwrap_or(0.0))
}

fn train_head(check: &mut Check, setup: &Setup, run: &str) -> Result<()> {
    let (weight, bias) = (check.input("init.weight")?, check.input("init.bias")?);
    let (classes, width) = weight.size2()?;
    let head = ProbeHead::new(Device::Cpu, width, classes, true);
    let get = |name: &str| head.vars().get(name).with_context(|| format!("the head has no `{name}`"));
    tch::no_grad(|| -> Result<()> {
        get("linear.weight")?.copy_(&weight);
        get("linear.bias")?.copy_(&bias);
        Ok(())
    })?;
    let config = LarsConfig { weight_decay: weight_decay(run)?, ..LarsConfig::PROBE };
    let mut lars = Lars::new(head.vars().parameters(), config);
    let steps = check.golden.tensor(&format!("{run}.losses"))?.size()[0];
    let (mut losses, mut lrs) = (vec![], vec![]);
    let rows = setup.features.size()[0];
    for step in 0..steps {
        let batch =
            (Tensor::arange(setup.batch, (Kind::Int64, Device::Cpu)) + step * setup.batch).remainder(rows);
        let logits = head.train(&setup.features.index_select(0, &batch), true);
        let labels = setup.labels.index_select(0, &batch);
        let loss = logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0);
        let parameters: Vec<Tensor> = head.vars().parameters().into_iter().map(|v| v.tensor).collect();
        let gradients = Tensor::run_backward(&[&loss], &parameters, false, false);
        losses.push(loss.double_value(&[]));
        lrs.push(setup.schedule.at(step as f64 / setup.steps_per_epoch));
        lars.step(&gradients, lrs[step as usize]);
        let name = format!("{run}.weight_after_{}", step + 1);
        check.compare(&name, Rule::Within(1e-6), || parameters[0].copy())?;
    }
    check.compare("lrs", Rule::Double, || Tensor::from_slice(&lrs))?;
    check.compare(&format!("{run}.losses"), Rule::Within(1e-5), || Tensor::from_slice(&losses))?;
    let named = [
        ("weight", get("linear.weight")?, Rule::Within(1e-6)),
        ("bias", get("linear.bias")?, Rule::Within(1e-6)),
        ("running_mean", get("norm.running_mean")?, Rule::Values),
        ("running_var", get("norm.running_var")?, Rule::Values),
    ];
    for (name, found, rule) in named {
        check.compare(&format!("{run}.{name}"), rule, || found)?;
    }
    for (name, mu) in lars.state() {
        let name = name.replace("mu.linear.", "mu_");
        check.compare(&format!("{run}.{name}"), Rule::Within(1e-6), || mu)?;
    }
    check.compare(&format!("{run}.eval_logits"), Rule::Bounded, || head.eval(&setup.features))?;
    let top1 = head.score(&setup.features, &setup.labels)?.top1;
    check.scalar(&format!("{run}.top1"), Near::Equal, top1)
}

/// "blr 0.1, 128 images x 64 processes (lr 3.2), warm-up 10, 90 epochs"
fn published_schedule(check: &mut Check) -> Result<()> {
    if !check.golden.has("schedule.lr") {
        return Ok(());
    }
    let epochs = Vec::<f64>::try_from(check.input("schedule.epoch")?)?;
    let meaning = check.golden.meaning("schedule.lr");
    let (_, rest) = meaning.split_once("warm-up").context("schedule.lr: no warm-up")?;
    let schedule = EpochSchedule {
        lr: number_after(meaning, "(lr")?,
        warmup: number_after(meaning, "warm-up")?,
        epochs: number_after(rest, ",")?,
    };
    let found: Vec<f64> = epochs.iter().map(|e| schedule.at(*e)).collect();
    check.compare("schedule.lr", Rule::Double, || Tensor::from_slice(&found))
}
