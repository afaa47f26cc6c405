//! Feature rows of both sides.

use backbones::FeatureId;
use tch::Tensor;

use crate::score::{Better, Score, ScoreContext};

/// Rows (N, D) of both sides and the network that they are from.
pub struct FeatureRows<'a> {
    /// Rows of the images judged.
    pub samples: &'a Tensor,
    /// Rows of the images compared with.
    pub reference: &'a Tensor,
    /// The network.
    pub network: Option<&'a FeatureId>,
    /// Facts that the scores share.
    pub context: &'a ScoreContext,
}

impl FeatureRows<'_> {
    /// A score of these rows.
    pub fn score(&self, name: &str, value: f64, better: Better, variant: &str) -> Score {
        let reference = self.reference.size()[0] as u64;
        self.context.score(name, value, better, variant).of(self.network).against(Some(reference))
    }
}
