//! Validation loss of a transformer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tch::Tensor;

use crate::batch::{BatchFeatures, EvalBatch, Item, MetricValues};
use crate::math::likelihood::Likelihood;
use crate::math::pixels::to_vec;
use crate::metric::{MetricSpec, MetricState, Minimum, Needs, ScoreInputs};
use crate::score::{Better, Score};
use crate::{Error, Result};

/// Cross-entropy of codes given the class.
pub const SPEC: MetricSpec = MetricSpec {
    needs: Needs { likelihood: true, ..Needs::NOTHING },
    minimum: Minimum::any,
    start: |_| Ok(Box::new(ArLoss::default())),
};

/// Nats of each image's codes among the values of a batch, (B) float64.
const NATS: &str = "nats";
/// Codes of an image among them.
const NUM_TOKENS: &str = "num_tokens";

#[derive(Default, Serialize, Deserialize)]
struct ArLoss {
    all: Likelihood,
    classes: BTreeMap<i64, Likelihood>,
}

impl MetricState for ArLoss {
    fn measure(&self, batch: &EvalBatch, _: &BatchFeatures) -> Result<MetricValues> {
        let Some(predicted) = &batch.likelihood else { return Ok(MetricValues::new()) };
        let num_tokens = Tensor::from(predicted.num_tokens as i64);
        let values = [(NATS, predicted.nats.shallow_clone()), (NUM_TOKENS, num_tokens)];
        Ok(values.map(|(name, value)| (name.to_owned(), value)).into())
    }

    fn add(&mut self, values: &MetricValues, items: &[Item]) -> Result<()> {
        let (Some(nats), Some(num_tokens)) = (values.get(NATS), values.get(NUM_TOKENS)) else {
            return Ok(());
        };
        let num_tokens = num_tokens.int64_value(&[]).unsigned_abs();
        for (nats, item) in to_vec(nats)?.into_iter().zip(items) {
            self.all.add(nats, num_tokens);
            if let Some(class) = item.class {
                self.classes.entry(class).or_default().add(nats, num_tokens);
            }
        }
        Ok(())
    }

    fn save(&self) -> Result<Json> {
        Ok(serde_json::to_value(self)?)
    }

    fn merge(&mut self, saved: &Json) -> Result<()> {
        let other = ArLoss::deserialize(saved)?;
        self.all.merge(&other.all);
        for (class, likelihood) in &other.classes {
            self.classes.entry(*class).or_default().merge(likelihood);
        }
        Ok(())
    }

    fn scores(&self, inputs: &ScoreInputs) -> Result<Vec<Score>> {
        let s = self.all.scores().ok_or(Error::Nothing("no codes were predicted"))?;
        let score = |name: &str, value: f64, variant: &str| {
            inputs.context.score(name, value, Better::Lower, variant).without_reference()
        };
        Ok(vec![
            score(
                "ar_loss",
                s.nats_per_code,
                "cross-entropy in nats, mean over all codes; class given, dropout off",
            )
            .with_note("another tokenizer's codes have another loss"),
            score(
                "ar_bits_per_image",
                s.bits_per_image,
                "cross-entropy of all codes of an image, mean over images",
            ),
            score("ar_perplexity", s.perplexity, "exp of ar_loss"),
        ])
    }

    fn class_figure(&self, class: i64) -> Option<String> {
        let scores = self.classes.get(&class)?.scores()?;
        Some(format!("loss {:.4} nats a code", scores.nats_per_code))
    }
}
