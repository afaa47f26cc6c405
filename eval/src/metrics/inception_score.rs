//! Inception Scores.

use settings::Metric;

use crate::math::inception_score::{ADM_SPLIT_SIZE, FIDELITY_SPLITS, Splits};
use crate::metric::{FromFeatures, MetricSpec, Minimum, Needs, ScoreInputs};
use crate::networks::Role;
use crate::score::{Better, Score};
use crate::{Error, Result};

/// ADM's: chunks of 5,000 images in file order.
pub const SPEC: MetricSpec = MetricSpec {
    needs: Needs { splits: Some(|_| Splits::OfSize(ADM_SPLIT_SIZE)), ..LOGITS },
    minimum: Minimum::any,
    start: |_| Ok(Box::new(FromFeatures(|inputs| score(inputs, Metric::Is, ADM)))),
};

/// torch-fidelity's: ten shuffled chunks.
pub const FIDELITY: MetricSpec = MetricSpec {
    needs: Needs { splits: Some(|images| Splits::fidelity(images, FIDELITY_SPLITS)), ..LOGITS },
    minimum: Minimum::any,
    start: |_| Ok(Box::new(FromFeatures(|inputs| score(inputs, Metric::IsFidelity, TORCH_FIDELITY)))),
};

const LOGITS: Needs = Needs { features: Some(Role::Main), logits: true, ..Needs::NOTHING };

/// Variant of ADM's score.
pub const ADM: &str = "ADM: chunks of 5,000 in file order, mean over chunks";
/// Variant of torch-fidelity's score.
pub const TORCH_FIDELITY: &str =
    "torch-fidelity: 10 chunks in the order of RandomState(2020), mean over chunks";

fn score(inputs: &ScoreInputs, metric: Metric, variant: &str) -> Result<Vec<Score>> {
    let samples = inputs.features(Role::Main)?;
    let of_size = metric == Metric::Is;
    let found = samples.inception_score(|splits| matches!(splits, Splits::OfSize(_)) == of_size);
    let found = found.ok_or(Error::Nothing("no logits were gathered"))?.scores()?;
    let score = inputs.context.score(metric.name(), found.mean, Better::Higher, variant);
    let score = score.of(Some(samples.id()));
    let score = if found.chunks.len() > 1 { score.with_std(found.std) } else { score };
    Ok(vec![score.with_series(found.chunks).without_reference()])
}
