//! CMMD.

use crate::Result;
use crate::math::kernel::cmmd;
use crate::metric::{FromFeatures, MetricSpec, Minimum, Needs};
use crate::networks::Role;
use crate::rows::FeatureRows;
use crate::score::{Better, Score};

/// Maximum mean discrepancy of CLIP embeddings.
pub const SPEC: MetricSpec = MetricSpec {
    needs: Needs { features: Some(Role::Clip), ..Needs::ROWS },
    minimum: Minimum::any,
    start: |_| Ok(Box::new(FromFeatures(|inputs| inputs.of_rows(Role::Clip, |rows| Ok(vec![score(rows)?]))))),
};

/// The score of embeddings of norm 1.
pub fn score(rows: &FeatureRows) -> Result<Score> {
    let found = cmmd(rows.samples, rows.reference)?;
    let variant = "Gaussian kernel, sigma 10, biased, times 1000, float64";
    Ok(rows.score("cmmd", found, Better::Lower, variant))
}
