//! Density and coverage.

use crate::Result;
use crate::math::neighbours::{Manifold, prdc};
use crate::metric::{FromFeatures, MetricOptions, MetricSpec, Minimum, Needs};
use crate::networks::Role;
use crate::rows::FeatureRows;
use crate::score::{Better, Score};

/// prdc's density and coverage, which come together, beside its precision and recall.
pub const SPEC: MetricSpec = MetricSpec {
    needs: Needs::ROWS,
    minimum: |options| Minimum::new(k(options).unsigned_abs() + 1, k(options).unsigned_abs() + 1),
    start: |_| {
        Ok(Box::new(FromFeatures(|inputs| {
            inputs.of_rows(Role::Main, |rows| scores(rows, k(inputs.options)))
        })))
    },
};

/// Number of nearest neighbours: prdc's, unless another one is chosen.
pub fn k(options: &MetricOptions) -> i64 {
    options.neighbours.unwrap_or(5)
}

/// All four scores of feature rows.
pub fn scores(rows: &FeatureRows, k: i64) -> Result<Vec<Score>> {
    let found = prdc(&Manifold::new(rows.samples, k)?, &Manifold::new(rows.reference, k)?)?;
    let variant = format!("prdc: k = {k}, on the surface does not count, float64 distances");
    let score = |name: &str, value: f64| rows.score(name, value, Better::Higher, &variant);
    Ok(vec![
        score("density", found.density),
        score("coverage", found.coverage),
        score("precision_prdc", found.precision),
        score("recall_prdc", found.recall),
    ])
}
