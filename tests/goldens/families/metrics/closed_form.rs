//! Fréchet distances with known answers, from statistics.

use anyhow::{Context, Result};
use eval::{Statistics, frechet_distance};
use tch::{Kind, Tensor};

use crate::check::{Check, Near};

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    for name in ["commuting", "two"] {
        let mut side = |i: u8| -> Result<Statistics> {
            let mean = check.input(&format!("{name}.mu{i}"))?;
            Ok(Statistics::new(&mean, &check.input(&format!("{name}.sigma{i}"))?)?)
        };
        let found = frechet_distance(&side(1)?, &side(2)?)?;
        check.scalar(&format!("{name}.fid"), Near::Relative(1e-10), found)?;
    }
    one(check)?;
    ill(check)
}

/// One dimension; the numbers are in the manifest's description.
fn one(check: &mut Check) -> Result<()> {
    if !check.golden.scalar_names().contains(&"one.fid") {
        return Ok(());
    }
    let meaning = check.golden.meaning("one.fid").to_owned();
    let pair = |key: &str, between: &str| -> Result<[f64; 2]> {
        let (_, rest) = meaning.split_once(key).context("one.fid's meaning")?;
        let mut numbers = rest.split([',', ' ']).filter(|w| !w.is_empty() && *w != between);
        let mut next = || numbers.next().context("a number").and_then(|w| Ok(w.parse::<f64>()?));
        Ok([next()?, next()?])
    };
    let (mean, variance) = (pair("mu ", "vs")?, pair("variance ", "vs")?);
    let side = |i: usize| {
        Statistics::new(&Tensor::from_slice(&[mean[i]]), &Tensor::from_slice(&[variance[i]]).view([1, 1]))
    };
    check.scalar("one.fid", Near::Relative(1e-10), frechet_distance(&side(0)?, &side(1)?)?)
}

/// Spectra over fourteen decades.
fn ill(check: &mut Check) -> Result<()> {
    if !check.golden.has("ill.sigma") {
        return Ok(());
    }
    let zero_mean = |sigma: &Tensor| {
        let mean = Tensor::zeros([sigma.size()[0]], (Kind::Double, tch::Device::Cpu));
        Statistics::new(&mean, sigma)
    };
    let sigma = check.input("ill.sigma")?;
    let (a, b) = (zero_mean(&sigma)?, zero_mean(&check.input("ill.sigma_b")?)?);
    let bound = Near::Within(2e-5);
    check.scalar("ill.fid_self", bound, frechet_distance(&a, &a)?)?;
    check.scalar("ill.fid_self_truncated_eigh_f64", bound, frechet_distance(&a, &a)?)?;
    check.scalar("ill.fid_scaled4", bound, frechet_distance(&a, &zero_mean(&(&sigma * 4.0))?)?)?;
    for name in ["ill.fid_b", "ill.fid_b_truncated_eigh_f64", "ill.fid_b_symmetric_eigh_f64"] {
        check.scalar(name, bound, frechet_distance(&a, &b)?)?;
    }
    Ok(())
}
