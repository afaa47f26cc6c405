//! The Inception Score of logits, in every published variant.

use anyhow::{Context, Result};
use eval::{InceptionScores, Splits, inception_score, numpy};
use tch::{Device, Kind, Tensor};

use crate::check::{Check, Near, Rule};

/// The whole golden: scalars are named `SET.VARIANT`.
pub fn check(check: &mut Check) -> Result<()> {
    let names: Vec<String> = check.golden.scalar_names().into_iter().map(str::to_owned).collect();
    let sets = check.golden.tensor_names().into_iter().filter_map(|n| n.strip_suffix(".logits"));
    for set in sets.map(str::to_owned).collect::<Vec<_>>() {
        let logits = check.input(&format!("{set}.logits"))?;
        let order = numpy::permutation(eval::FIDELITY_SEED, logits.size()[0] as usize);
        let order: Vec<i64> = order.into_iter().map(|i| i as i64).collect();
        check.compare(&format!("{set}.perm"), Rule::Equal, || Tensor::from_slice(&order))?;
        for name in names.iter().filter(|n| n.starts_with(&format!("{set}."))) {
            one(check, name, &logits)?;
        }
    }
    let constant = Tensor::zeros([50, 7], (Kind::Float, Device::Cpu));
    check.scalar(
        "uniform_rows",
        Near::Within(1e-12),
        inception_score(&constant, &Splits::OfSize(5000))?.mean,
    )?;
    if check.golden.scalar_names().contains(&"onehot_balanced_k") {
        let k = check.golden.scalar("onehot_balanced_k")? as i64;
        let onehot = (Tensor::eye(k, (Kind::Double, Device::Cpu)) * 1e4).repeat([5, 1]);
        let found = inception_score(&onehot, &Splits::OfSize(5000))?.mean;
        check.scalar("onehot_balanced_k", Near::Relative(1e-12), found)?;
    }
    Ok(())
}

/// `tf_mean_splits10`, `tf_std_splits10`, `tf_mean_splits10_noshuffle`, `adm_split5000`,
/// `f64_split50`.
fn one(check: &mut Check, name: &str, logits: &Tensor) -> Result<()> {
    let (_, variant) = name.split_once('.').context("SET.VARIANT")?;
    let rows = logits.size()[0] as u64;
    let count = || -> Result<u64> {
        let (_, after) = variant.split_once("split").context("how many chunks?")?;
        let digits = after.trim_start_matches('s').split('_').next().unwrap_or("");
        digits.parse().with_context(|| format!("`{variant}`"))
    };
    let splits = match () {
        () if variant.starts_with("tf_") && variant.ends_with("_noshuffle") => {
            Splits::InOrder { rows, splits: count()? }
        }
        () if variant.starts_with("tf_") => Splits::fidelity(rows, count()?),
        () => Splits::OfSize(count()?),
    };
    let InceptionScores { mean, std, .. } = inception_score(logits, &splits)?;
    let found = if variant.contains("_std_") { std } else { mean };
    let near = if variant.starts_with("adm_") { Near::Relative(1e-5) } else { Near::Relative(1e-9) };
    // A deviation of zero has no relative error.
    let near = if check.golden.scalar(name)? == 0.0 { Near::Within(1e-12) } else { near };
    check.scalar(name, near, found)
}
