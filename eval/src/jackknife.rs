//! Interval of a Fréchet distance for another choice of images.

use crate::math::features::at_least;
use crate::{FeatureAccumulator, FrechetReference, Result};

/// Groups that are left out in turn.
pub const GROUPS: u64 = 10;

/// Student's 97.5 % point for nine degrees of freedom.
const T9: f64 = 2.262_157_162_740_992;

/// A 95 % interval for the distance of the collected images by the delete-a-group jackknife: the
/// distance is computed ten times, each time without one tenth of the images. It tells the chance
/// in the choice of images; the bias of small sets is in all ten alike and stays.
pub fn jackknife(reference: &FrechetReference, samples: &FeatureAccumulator) -> Result<[f64; 2]> {
    let whole = reference.distance(&samples.moments()?.statistics()?)?;
    at_least("an interval over ten groups of images", GROUPS as i64, samples.groups_with_images() as i64)?;
    let without: Result<Vec<f64>> =
        samples.without_each_group().map(|rest| reference.distance(&rest?.statistics()?)).collect();
    let without = without?;
    let n = without.len() as f64;
    let mean = without.iter().sum::<f64>() / n;
    let variance = (n - 1.0) / n * without.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    let half = T9 * variance.sqrt();
    Ok([whole - half, whole + half])
}
