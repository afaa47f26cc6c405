//! Precision, recall, density and coverage.

use anyhow::Result;
use eval::{Manifold, Prdc, PrecisionRecall, prdc, precision_recall};

use super::{flags, numbers_after};
use crate::check::{Check, Near, Rule};

/// The whole golden. Numbers of neighbours are at the ends of the scalars' names.
pub fn check(check: &mut Check) -> Result<()> {
    let (real, fake) = (check.input("real")?, check.input("fake")?);
    for k in numbers_after(check.golden, "adm_precision_k") {
        let (reference, samples) = (Manifold::new(&real, k)?, Manifold::new(&fake, k)?);
        let radii = Rule::Relative(1e-5);
        check.compare("adm_radii_real", radii, || reference.squared_radii().copy())?;
        check.compare("adm_radii_fake", radii, || samples.squared_radii().copy())?;
        let inside = reference.membership(&fake)?.within;
        check.compare("fake_in_real", Rule::Equal, || flags(&inside))?;
        let inside = samples.membership(&real)?.within;
        check.compare("real_in_fake", Rule::Equal, || flags(&inside))?;
        published(check, "adm_", k, precision_recall(&samples, &reference)?)?;
    }
    for k in numbers_after(check.golden, "torch_fidelity_precision_k") {
        let found = precision_recall(&Manifold::new(&fake, k)?, &Manifold::new(&real, k)?)?;
        let PrecisionRecall { precision, recall } = found;
        let single = Near::Within(1e-7); // torch-fidelity returns means of fp32
        check.scalar(&format!("torch_fidelity_precision_k{k}"), single, precision)?;
        check.scalar(&format!("torch_fidelity_recall_k{k}"), single, recall)?;
        let f_score = 2.0 * precision * recall / (precision + recall);
        check.scalar(&format!("torch_fidelity_f_score_k{k}"), single, f_score)?;
    }
    for k in numbers_after(check.golden, "prdc_precision_k") {
        let found = prdc(&Manifold::new(&fake, k)?, &Manifold::new(&real, k)?)?;
        four(check, "prdc_", &format!("_k{k}"), found)?;
    }
    lattice(check)?;
    skip_informative(check);
    Ok(())
}

fn published(check: &mut Check, prefix: &str, k: i64, found: PrecisionRecall) -> Result<()> {
    check.scalar(&format!("{prefix}precision_k{k}"), Near::Within(1e-12), found.precision)?;
    check.scalar(&format!("{prefix}recall_k{k}"), Near::Within(1e-12), found.recall)
}

fn four(check: &mut Check, prefix: &str, suffix: &str, found: Prdc) -> Result<()> {
    let Prdc { precision, recall, density, coverage } = found;
    let values = [("precision", precision), ("recall", recall), ("density", density), ("coverage", coverage)];
    for (name, value) in values {
        check.scalar(&format!("{prefix}{name}{suffix}"), Near::Within(1e-12), value)?;
    }
    Ok(())
}

/// Whole numbers: many ties, which the two rules judge differently.
fn lattice(check: &mut Check) -> Result<()> {
    if !check.golden.has("lattice_real") {
        return Ok(());
    }
    let (real, fake) = (check.input("lattice_real")?, check.input("lattice_fake")?);
    for k in numbers_after(check.golden, "lattice_adm_precision_k") {
        let (reference, samples) = (Manifold::new(&real, k)?, Manifold::new(&fake, k)?);
        check.compare("lattice_radii_real", Rule::Equal, || reference.squared_radii().copy())?;
        published(check, "lattice_adm_", k, precision_recall(&samples, &reference)?)?;
    }
    for k in numbers_after(check.golden, "lattice_strict_precision_k") {
        let (reference, samples) = (Manifold::new(&real, k)?, Manifold::new(&fake, k)?);
        four(check, "lattice_strict_", &format!("_k{k}"), prdc(&samples, &reference)?)?;
    }
    Ok(())
}

fn skip_informative(check: &mut Check) {
    let names: Vec<String> = check.golden.scalar_names().into_iter().map(str::to_owned).collect();
    for name in names {
        if name.starts_with("fp16_emulated") || name.starts_with("lattice_prdc") {
            check.skip(&name, "informative: another program's rounding");
        } else if name.ends_with("_batches_checked") {
            check.skip(&name, "a text: tiles that the reference was run with");
        }
    }
}
