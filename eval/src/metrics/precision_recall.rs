//! Precision and recall.

use crate::Result;
use crate::math::neighbours::{Manifold, precision_recall};
use crate::metric::{FromFeatures, MetricOptions, MetricSpec, Minimum, Needs};
use crate::networks::Role;
use crate::rows::FeatureRows;
use crate::score::{Better, Score};

/// ADM's precision and recall, which come together.
pub const SPEC: MetricSpec = MetricSpec {
    needs: Needs::ROWS,
    minimum: |options| Minimum::new(k(options).unsigned_abs() + 1, k(options).unsigned_abs() + 1),
    start: |_| {
        Ok(Box::new(FromFeatures(|inputs| {
            inputs.of_rows(Role::Main, |rows| scores(rows, k(inputs.options)))
        })))
    },
};

/// Number of nearest neighbours: ADM's, unless another one is chosen.
pub fn k(options: &MetricOptions) -> i64 {
    options.neighbours.unwrap_or(3)
}

/// Both scores of feature rows.
pub fn scores(rows: &FeatureRows, k: i64) -> Result<Vec<Score>> {
    let found = precision_recall(&Manifold::new(rows.samples, k)?, &Manifold::new(rows.reference, k)?)?;
    let variant = format!("ADM: k = {k}, on the surface counts, float64 distances");
    Ok(vec![
        rows.score("precision", found.precision, Better::Higher, &variant),
        rows.score("recall", found.recall, Better::Higher, &variant),
    ])
}
