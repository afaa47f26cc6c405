//! The Fréchet distance of feature sets, by both routes.

use anyhow::{Context, Result};
use base::testing::recipe_integers;
use eval::{FrechetReference, Moments, Statistics, frechet_of_features};
use tch::{Kind, Tensor};

use crate::check::{Check, Near, Rule};
use crate::run::number_after;

/// The whole golden: a set for each scalar `SET.fid`.
pub fn check(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    let sets = golden.scalar_names().into_iter().filter_map(|n| n.strip_suffix(".fid"));
    for set in sets.map(str::to_owned).collect::<Vec<_>>() {
        let (a, b) = (features(check, &set, 1)?, features(check, &set, 2)?);
        one_set(check, &set, &a, &b)?;
    }
    Ok(())
}

fn one_set(check: &mut Check, set: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    let (n, m, d) = (a.size()[0], b.size()[0], a.size()[1]);
    let full_rank = n.min(m) > d;
    let (left, right) = (Moments::of(a)?.statistics()?, Moments::of(b)?.statistics()?);
    statistics(check, set, &left, &right)?;
    let reference = FrechetReference::new(&left)?;
    let (route, own) = (reference.distance(&right)?, reference.distance(&left)?);
    let name = |end: &str| format!("{set}.{end}");
    let oracle = check.golden.scalar(&name("fid"))?;
    let near = if full_rank { Near::Relative(1e-8) } else { Near::Within(2e-5) };
    let other = if full_rank { Near::Relative(1e-6) } else { Near::Within(1e-3) };
    check.scalar(&name("fid"), Near::Relative(1e-8), frechet_of_features(a, b)?)?;
    check.scalar(&name("fid_truncated_eigh"), near, route)?;
    let off = (route - oracle).abs();
    let bound = if full_rank { 1e-8 * oracle.abs() } else { 2e-5 };
    check.must(&name("fid by eigenvalues"), off <= bound, format!("off by {off:.1e} (at most {bound:.1e})"));
    check.scalar(&name("fid_self_truncated_eigh"), Near::Within(1e-6), own)?;
    for program in ["symmetric_eigh", "torch_fidelity", "pytorch_fid", "dgm_eval_efficient"] {
        check.scalar(&name(&format!("fid_{program}")), other, route)?;
    }
    check.scalar(&name("rank1"), Near::Equal, reference.rank() as f64)?;
    for (key, value) in [("d", d), ("n1", n), ("n2", m)] {
        check.scalar(&name(key), Near::Equal, value as f64)?;
    }
    ridge(check, set, &left, &right)
}

fn statistics(check: &mut Check, set: &str, left: &Statistics, right: &Statistics) -> Result<()> {
    let name = |end: &str| format!("{set}.{end}");
    let bound = Rule::Relative(1e-10);
    for (i, s) in [(1, left), (2, right)] {
        check.compare(&name(&format!("mu{i}")), bound, || s.mean.copy())?;
        check.compare(&name(&format!("sigma{i}")), bound, || s.covariance.copy())?;
        check.compare(&name(&format!("sigma{i}_diag")), bound, || s.covariance.diagonal(0, 0, 1).copy())?;
        check.compare(&name(&format!("sigma{i}_row0")), bound, || s.covariance.get(0).copy())?;
        let trace = s.covariance.trace().double_value(&[]);
        check.scalar(&name(&format!("trace{i}")), Near::Relative(1e-10), trace)?;
        let root = name(&format!("sqrt_sigma{i}"));
        if check.golden.has(&root) {
            check.skip(&root, "no metric needs the root itself");
        }
    }
    let means = (&left.mean - &right.mean).square().sum(Kind::Double).double_value(&[]);
    check.scalar(&name("mean_term"), Near::Relative(1e-10), means)
}

/// The same with something added to both diagonals.
fn ridge(check: &mut Check, set: &str, left: &Statistics, right: &Statistics) -> Result<()> {
    let prefix = format!("{set}_ridge.fid_");
    let names: Vec<String> = check.golden.scalar_names().into_iter().map(str::to_owned).collect();
    let Some(first) =
        names.iter().find(|n| n.starts_with(&prefix) && check.golden.meaning(n).contains("with"))
    else {
        return Ok(());
    };
    let added = number_after(check.golden.meaning(first), "with")?;
    let with = |s: &Statistics| {
        let d = s.dimension();
        let diagonal = Tensor::eye(d, (Kind::Double, tch::Device::Cpu)) * added;
        Statistics::new(&s.mean, &(&s.covariance + diagonal))
    };
    let found = FrechetReference::new(&with(left)?)?.distance(&with(right)?)?;
    for name in names.iter().filter(|n| n.starts_with(&prefix)) {
        check.scalar(name, Near::Relative(1e-8), found)?;
    }
    Ok(())
}

/// Stored features, or those of the README's recipe.
fn features(check: &mut Check, set: &str, i: u8) -> Result<Tensor> {
    let stored = format!("{set}.x{i}");
    if check.golden.has(&stored) {
        return check.input(&stored);
    }
    let count = format!("{set}.n{i}");
    let d = check.golden.scalar(&format!("{set}.d"))? as i64;
    let n = check.golden.scalar(&count)? as i64;
    let x = by_recipe(check, check.golden.meaning(&count), n, d)?;
    let bytes: Vec<u8> = Vec::<f32>::try_from(x.view(-1))?.iter().flat_map(|v| v.to_le_bytes()).collect();
    let found = base::hash::hex(&base::hash::sha256(bytes));
    let digest = format!("{stored}_sha256");
    let expected = check.golden.get("scalars")[&digest]["value"].as_str().unwrap_or("").to_owned();
    check.must(&digest, found == expected, format!("{found}, expected {expected}"));
    check.skip(&digest, "a text, compared above");
    let head = format!("{stored}_head");
    if check.golden.has(&head) {
        let shape = check.golden.tensor(&head)?.size();
        check.compare(&head, Rule::Equal, || x.narrow(0, 0, shape[0]).narrow(1, 0, shape[1]))?;
    }
    Ok(x)
}

/// `rows of NAME (feature recipe, shift 1500, zmod 230)`: see the feature recipe of the goldens'
/// README.
fn by_recipe(check: &Check, meaning: &str, n: i64, d: i64) -> Result<Tensor> {
    const RANK: i64 = 64;
    let seed = check.golden.get("seed").as_u64().context("seed")?;
    let (_, name) = meaning.split_once("rows of ").context("whose rows?")?;
    let name = name.split(' ').next().context("a name")?;
    let option = |key: &str, usual: f64| {
        if meaning.contains(key) { number_after(meaning, key) } else { Ok(usual) }
    };
    let (shift, modulus) = (option("shift", 0.0)?, option("zmod", 256.0)? as u64);
    let integers =
        |name: String, shape: &[i64], m: u64| recipe_integers(&name, seed, shape, m).to_kind(Kind::Double);
    let z = integers(format!("{name}.z"), &[n, RANK], modulus) - (modulus / 2) as f64;
    let w = integers(format!("basis.{RANK}x{d}"), &[RANK, d], 256) - 128.0;
    let b = integers(format!("bias.{RANK}x{d}"), &[d], 65536) + shift;
    let e = integers(format!("{name}.e"), &[n, d], 256);
    let x = ((z.matmul(&w) + b).clamp_min(0.0) + e * 256.0) / 65536.0;
    Ok(x.to_kind(Kind::Float))
}
