//! Fréchet distances: FID, sFID and FDD.

use settings::Metric;

use crate::Result;
use crate::accumulator::FeatureAccumulator;
use crate::jackknife::{GROUPS, jackknife};
use crate::math::frechet::FrechetReference;
use crate::metric::{FromFeatures, MetricOptions, MetricSpec, Minimum, Needs, ScoreInputs};
use crate::networks::Role;
use crate::score::{Better, Score};

/// Number of images of published values.
pub const PUBLISHED_IMAGES: u64 = 50_000;

/// FID on the main network's features.
pub const FID: MetricSpec = MetricSpec {
    needs: needs(Role::Main, false),
    minimum: groups,
    start: |_| Ok(Box::new(FromFeatures(|inputs| distance(inputs, Role::Main, Metric::Fid)))),
};

/// The same on spatial features.
pub const SFID: MetricSpec = MetricSpec {
    needs: needs(Role::Main, true),
    minimum: |_| Minimum::new(2, 0),
    start: |_| Ok(Box::new(FromFeatures(|inputs| distance(inputs, Role::Main, Metric::Sfid)))),
};

/// The same on DINOv2's features.
pub const FDD: MetricSpec = MetricSpec {
    needs: needs(Role::Dino, false),
    minimum: groups,
    start: |_| Ok(Box::new(FromFeatures(|inputs| distance(inputs, Role::Dino, Metric::Fdd)))),
};

const fn needs(role: Role, spatial: bool) -> Needs {
    Needs {
        reference: true,
        features: Some(role),
        moments: !spatial,
        spatial,
        biased: true,
        ..Needs::NOTHING
    }
}

fn groups(options: &MetricOptions) -> Minimum {
    Minimum::new(if options.interval { GROUPS } else { 2 }, 0)
}

fn distance(inputs: &ScoreInputs, role: Role, metric: Metric) -> Result<Vec<Score>> {
    let spatial = metric == Metric::Sfid;
    let samples = inputs.features(role)?;
    let (statistics, count) = inputs.reference_statistics(role, spatial)?;
    let reference = FrechetReference::new(&statistics)?;
    let mine = if spatial { samples.spatial()?.statistics()? } else { samples.moments()?.statistics()? };
    let value = reference.distance(&mine)?;
    let interval = match inputs.options.interval && !spatial {
        true => Some(jackknife(&reference, samples)?),
        false => None,
    };
    let d = mine.dimension();
    let variant = match spatial {
        true => format!("ADM: {d} features of places, float64 moments"),
        false => format!("{d} features, float64 moments"),
    };
    let score = inputs.context.score(metric.name(), value, Better::Lower, &variant).of(Some(samples.id()));
    let score = score.with_interval(interval).against(count);
    Ok(vec![with_size(score, samples)])
}

/// Notes that the distance of few images compares with little.
fn with_size(score: Score, samples: &FeatureAccumulator) -> Score {
    match samples.count() {
        n if n < PUBLISHED_IMAGES && samples.id().is_inception() => {
            score.with_note(format!("{n} images; published values are of 50,000 and not comparable"))
        }
        n if n < PUBLISHED_IMAGES => score.with_note(format!("compare with values of {n} images only")),
        _ => score,
    }
}
