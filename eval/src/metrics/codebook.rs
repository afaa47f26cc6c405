//! Usage of a tokenizer's codebook.

use base::Codes;
use serde::Deserialize as _;
use serde_json::Value as Json;

use crate::batch::{BatchFeatures, EvalBatch, Item, MetricValues};
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

/// Codes of a batch among its values, (B, N).
const CODES: &str = "codes";

struct Codebook(CodebookUsage);

impl MetricState for Codebook {
    fn measure(&self, batch: &EvalBatch, _: &BatchFeatures) -> Result<MetricValues> {
        let codes = batch.codes.iter().map(|codes| (CODES.to_owned(), codes.tensor().shallow_clone()));
        Ok(codes.collect())
    }

    fn add(&mut self, values: &MetricValues, _: &[Item]) -> Result<()> {
        match values.get(CODES) {
            Some(codes) => self.0.update(&Codes::new(codes.shallow_clone())?),
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
