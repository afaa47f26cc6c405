//! KID and CMMD.

use anyhow::Result;
use eval::{Estimator, KidSettings, kid_on, kid_subsets, polynomial_mmd2};
use tch::Tensor;

use crate::check::{Check, Near, Rule};

/// Kernel distances, on subsets and as a whole.
pub fn kid(check: &mut Check) -> Result<()> {
    let (a, b) = (check.input("x1")?, check.input("x2")?);
    let (i, j) = (check.input("idx1")?, check.input("idx2")?);
    let (subsets, size) = i.size2()?;
    let row = |t: &Tensor, s: i64| Vec::<i64>::try_from(t.get(s));
    let given: Result<Vec<_>> = (0..subsets).map(|s| Ok((row(&i, s)?, row(&j, s)?))).collect();
    let given = given?;
    let settings = KidSettings { subsets: subsets as usize, size: size as usize, ..KidSettings::default() };
    let (n, m) = (a.size()[0], b.size()[0]);
    let drawn = kid_subsets(&settings, n as usize, m as usize);
    check.must("subsets as torch-fidelity draws them", drawn == given, format!("{subsets} of {size} rows"));
    let found = kid_on(&a, &b, &given)?;
    check.compare("mmd2_per_subset", Rule::Relative(1e-9), || Tensor::from_slice(&found.subsets))?;
    check.scalar("kid_mean", Near::Relative(1e-9), found.mean)?;
    check.scalar("kid_std", Near::Relative(1e-9), found.std)?;
    check.scalar("kid_mean_f32", Near::Relative(1e-4), found.mean)?;
    let (head, tail) = (a.narrow(0, 0, n.min(m)), b.narrow(0, 0, n.min(m)));
    for (name, a, b, estimator) in [
        ("mmd2_first_min_n", &head, &tail, Estimator::Unbiased),
        ("mmd2_first_min_n_biased", &head, &tail, Estimator::Biased),
        ("mmd2_all_unequal", &a, &b, Estimator::Unbiased),
    ] {
        check.scalar(name, Near::Relative(1e-9), polynomial_mmd2(a, b, estimator)?)?;
    }
    Ok(())
}

/// CMMD of unit-norm embeddings.
pub fn cmmd(check: &mut Check) -> Result<()> {
    let found = eval::cmmd(&check.input("x1")?, &check.input("x2")?)?;
    check.scalar("cmmd_f64", Near::Relative(1e-9), found)?;
    check.skip("cmmd_f32", "it tells how many digits fp32 loses");
    Ok(())
}
