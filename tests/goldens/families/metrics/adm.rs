//! ADM's whole evaluation of two batches of images, from pixels to scores.

use anyhow::{Context, Result};
use backbones::{Features, InceptionExtractor, InputPath, WeightSource};
use base::ImagesU8;
use eval::{
    AccumulateSpec, FeatureAccumulator, Manifold, Moments, Splits, frechet_distance, precision_recall,
};
use tch::{Device, Kind, Tensor};

use super::numbers_after;
use crate::check::{Check, Near};

/// Images that go through the network together.
const BATCH: i64 = 16;

/// The whole golden: weights by the seed and the tensors' names.
pub fn check(check: &mut Check) -> Result<()> {
    let seed = check.golden.get("seed").as_u64().context("no seed")?;
    let network = InceptionExtractor::open(&WeightSource::Random { seed }, InputPath::Tf, Device::Cpu)?;
    let (reference, samples) = (collect(check, &network, "ref")?, collect(check, &network, "sample")?);
    let fid = frechet_distance(&reference.moments()?.statistics()?, &samples.moments()?.statistics()?)?;
    check.scalar("fid", Near::Relative(1e-3), fid)?;
    let places = |c: &FeatureAccumulator| -> Result<_> { Ok(c.spatial()?.statistics()?) };
    let sfid = frechet_distance(&places(&reference)?, &places(&samples)?)?;
    check.scalar("sfid", Near::Relative(1e-3), sfid)?;
    for (size, score) in split_sizes(check).into_iter().zip(samples.scores()) {
        check.scalar(&format!("{SCORE}{size}"), Near::Relative(1e-5), score.scores()?.mean)?;
    }
    let (a, b) = (Manifold::new(&samples.rows()?, 3)?, Manifold::new(&reference.rows()?, 3)?);
    let found = precision_recall(&a, &b)?;
    check.scalar("precision", Near::Within(1e-12), found.precision)?;
    check.scalar("recall", Near::Within(1e-12), found.recall)?;
    about_features(check, &reference)
}

/// Prefix of the scalars of the Inception Score, followed by the size of the chunks.
const SCORE: &str = "inception_score_split";

fn split_sizes(check: &Check) -> Vec<i64> {
    numbers_after(check.golden, SCORE)
}

fn about_features(check: &mut Check, reference: &FeatureAccumulator) -> Result<()> {
    let all: Moments = reference.moments()?;
    let norm = all.mean().norm().double_value(&[]);
    check.scalar("ref_mu_norm", Near::Relative(1e-5), norm)?;
    let spread = reference.rows()?.to_kind(Kind::Double).std_dim([0i64].as_slice(), false, false);
    check.scalar(
        "pool_std_over_images",
        Near::Relative(1e-3),
        spread.mean(Kind::Double).double_value(&[]),
    )?;
    check.skip("pr_min_relative_margin", "it tells how near the nearest pair is to a ball's surface");
    Ok(())
}

fn collect(check: &mut Check, network: &InceptionExtractor, name: &str) -> Result<FeatureAccumulator> {
    use backbones::FeatureExtractor as _;
    let scores = split_sizes(check).into_iter().map(|size| Splits::OfSize(size as u64)).collect();
    let gather = AccumulateSpec { groups: 1, spatial: true, rows: true, scores };
    let mut collector = FeatureAccumulator::new(network.id().clone(), gather);
    let images = check.input(name)?.permute([0, 3, 1, 2]).contiguous();
    let n = images.size()[0];
    for start in (0..n).step_by(BATCH as usize) {
        let count = BATCH.min(n - start);
        let batch: Tensor = images.narrow(0, start, count);
        let features: Features = network.extract(&ImagesU8::new(batch)?)?;
        let indices: Vec<u64> = (start as u64..(start + count) as u64).collect();
        collector.update(&features, &indices)?;
    }
    Ok(collector)
}
