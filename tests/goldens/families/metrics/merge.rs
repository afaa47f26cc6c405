//! Moments of shards, merged in several orders.

use anyhow::Result;
use eval::Moments;
use tch::{Kind, Tensor};

use crate::check::{Check, Near, Rule};

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let x = check.input("x")?.to_kind(Kind::Double);
    let bounds = Vec::<i64>::try_from(check.input("bounds")?)?;
    let shards = |x: &Tensor| -> Result<Vec<Moments>> {
        let piece = |w: &[i64]| Ok(Moments::of(&x.narrow(0, w[0], w[1] - w[0]))?);
        bounds.windows(2).map(piece).collect()
    };
    let parts = shards(&x)?;
    let means: Vec<&Tensor> = parts.iter().map(Moments::mean).collect();
    check.compare("shard_mean", Rule::Relative(1e-12), || Tensor::stack(&means, 0))?;
    let traces: Vec<Tensor> = parts.iter().map(|m| m.scatter().trace()).collect();
    check.compare("shard_m2_trace", Rule::Relative(1e-12), || Tensor::stack(&traces, 0))?;
    let forward = merged(parts.iter(), x.size()[1])?;
    let backward = merged(parts.iter().rev(), x.size()[1])?;
    let shifted = shards(&(&x + 1000.0))?;
    let offset = merged(shifted.iter(), x.size()[1])?;
    for (whole, mean) in [(&forward, "mu"), (&backward, "mu"), (&offset, "mu_offset")] {
        let found = whole.statistics()?;
        check.compare(mean, Rule::Relative(1e-12), || found.mean)?;
        check.compare("sigma", Rule::Within(1e-9), || found.covariance)?;
    }
    let difference = offset.statistics()?.covariance - forward.statistics()?.covariance;
    let largest = difference.abs().max().double_value(&[]);
    let bound = check.golden.scalar("sigma_offset_equals_sigma")?;
    check.must("sigma_offset_equals_sigma", largest <= bound, format!("{largest:.1e} (at most {bound:.1e})"));
    check.scalar("sigma_offset_equals_sigma", Near::Within(bound), largest)?;
    check.skip("naive_f32_sum_of_squares_max_error", "it tells how wrong another way is");
    Ok(())
}

fn merged<'a>(parts: impl Iterator<Item = &'a Moments>, dimension: i64) -> Result<Moments> {
    let mut whole = Moments::new(dimension);
    for part in parts {
        whole.merge(part)?;
    }
    Ok(whole)
}
