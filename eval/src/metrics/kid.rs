//! KID.

use crate::Result;
use crate::math::kernel::{KidSettings, kid};
use crate::metric::{FromFeatures, MetricSpec, Minimum, Needs};
use crate::networks::Role;
use crate::rows::FeatureRows;
use crate::score::{Better, Score};

/// Mean over subsets.
pub const SPEC: MetricSpec = MetricSpec {
    needs: Needs::ROWS,
    minimum: |options| Minimum {
        samples: options.kid.size as u64,
        reference: options.kid.size as u64,
        hint: "`--kid-subset-size` takes smaller subsets",
    },
    start: |_| {
        Ok(Box::new(FromFeatures(|inputs| {
            inputs.of_rows(Role::Main, |rows| Ok(vec![score(rows, &inputs.options.kid)?]))
        })))
    },
};

/// The score of feature rows.
pub fn score(rows: &FeatureRows, settings: &KidSettings) -> Result<Score> {
    let found = kid(rows.samples, rows.reference, settings)?;
    let variant = format!(
        "unbiased, {} subsets of {} drawn as torch-fidelity does, not multiplied by 1000",
        settings.subsets, settings.size
    );
    let score = rows.score("kid", found.mean, Better::Lower, &variant);
    Ok(score.with_std(found.std).with_series(found.subsets))
}
