//! Usage of a tokenizer's codebook.

use serde::Deserialize as _;
use serde_json::Value as Json;

use crate::batch::{BatchFeatures, EvalBatch};
use crate::math::codebook::CodebookUsage;
use crate::metric::{Distribution, MetricSpec, MetricState, Minimum, Needs, ScoreInputs};
use crate::score::{Better, Score};
use crate::{Error, Result};

/// Usage, perplexity and entropy of all codes.
pub const SPEC: MetricSpec = MetricSpec {
    needs: Needs { codes: true, ..Needs::NOTHING },
    minimum: Minimum::any,
    start: |setup| {
        let size = setup.codebook_size.ok_or(Error::Nothing("no image was encoded"))?;
        Ok(Box::new(Codebook(CodebookUsage::new(size))))
    },
};

struct Codebook(CodebookUsage);

impl MetricState for Codebook {
    fn update(&mut self, batch: &EvalBatch, _: &BatchFeatures) -> Result<()> {
        match &batch.codes {
            Some(codes) => self.0.update(codes),
            None => Ok(()),
        }
    }

    fn save(&self) -> Result<Json> {
        Ok(serde_json::to_value(&self.0)?)
    }

    fn merge(&mut self, saved: &Json) -> Result<()> {
        self.0.merge(&CodebookUsage::deserialize(saved)?)
    }

    fn scores(&self, inputs: &ScoreInputs) -> Result<Vec<Score>> {
        let s = self.0.scores()?;
        let score = |name: &str, value: f64, variant: &str| {
            inputs.context.score(name, value, Better::Higher, variant).without_reference()
        };
        Ok(vec![
            score("codebook_usage", s.usage, "distinct codes over all images / codebook size")
                .with_note(format!("{} of {} codes occur", s.used, s.codebook_size)),
            score("codebook_perplexity", s.perplexity, "exp of the entropy of all codes"),
            score("codebook_entropy_bits", s.entropy_bits, "of all codes, 0 log 0 = 0"),
            score(
                "codebook_usage_per_image",
                s.usage_per_image,
                "mean share of the codebook that one image uses",
            ),
        ])
    }

    fn distribution(&self) -> Option<Distribution> {
        Some(Distribution::Codes(self.0.counts().to_vec()))
    }
}
