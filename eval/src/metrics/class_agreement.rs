//! Class agreement: whether a classifier names images by the class that they are meant to show.

use backbones::Features;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tch::Tensor;

use crate::batch::{BatchFeatures, EvalBatch, Item, MetricValues};
use crate::class_row::ClassRow;
use crate::math::class_agreement::{AgreementScores, ClassAgreement};
use crate::metric::{MetricSpec, MetricState, Minimum, Needs, ScoreInputs};
use crate::networks::Role;
use crate::score::{Better, Score};
use crate::titles::AGREEMENT;
use crate::{Error, Result};

/// Accuracy of a classifier of ImageNet-1k, and the reference's own as the ceiling.
pub const SPEC: MetricSpec = MetricSpec {
    needs: Needs { features: Some(Role::Classifier), logits: true, imagenet: true, ..Needs::NOTHING },
    minimum: Minimum::any,
    start: |setup| {
        let counts = ClassAgreement::new(setup.classes.iter().copied());
        let counts = Counts { samples: counts.clone(), reference: counts };
        Ok(Box::new(Agreement { role: setup.role.unwrap_or(Role::Classifier), counts }))
    },
};

/// Logits (B, K) of both sides among the values of a batch.
const SAMPLES: &str = "samples";
const REFERENCE: &str = "reference";

struct Agreement {
    role: Role,
    counts: Counts,
}

#[derive(Serialize, Deserialize)]
struct Counts {
    samples: ClassAgreement,
    reference: ClassAgreement,
}

impl MetricState for Agreement {
    fn measure(&self, _: &EvalBatch, features: &BatchFeatures) -> Result<MetricValues> {
        let sides = [(SAMPLES, &features.samples), (REFERENCE, &features.reference)];
        let found = sides.into_iter().filter_map(|(side, all)| Some((side, all.get(&self.role)?)));
        found.map(|(side, features)| Ok((side.to_owned(), logits(features)?))).collect()
    }

    fn add(&mut self, values: &MetricValues, items: &[Item]) -> Result<()> {
        add(&mut self.counts.samples, values.get(SAMPLES), items)?;
        add(&mut self.counts.reference, values.get(REFERENCE), items)
    }

    fn save(&self) -> Result<Json> {
        Ok(serde_json::to_value(&self.counts)?)
    }

    fn merge(&mut self, saved: &Json) -> Result<()> {
        let saved = Counts::deserialize(saved)?;
        self.counts.samples.merge(&saved.samples);
        self.counts.reference.merge(&saved.reference);
        Ok(())
    }

    fn scores(&self, inputs: &ScoreInputs) -> Result<Vec<Score>> {
        let network = inputs.features(self.role)?.id();
        let sides =
            [(&self.counts.samples, "", ""), (&self.counts.reference, "reference_", ", of the reference")];
        let of_side = |(counts, prefix, whose): (&ClassAgreement, &str, &str)| {
            Some(side(counts, &counts.scores()?, inputs, [prefix, whose]))
        };
        let scores = sides.into_iter().filter_map(of_side).flatten();
        Ok(scores.map(|score| score.of(Some(network))).collect())
    }

    fn class_rows(&self) -> Vec<ClassRow> {
        let reference = self.counts.reference.by_class();
        let by_class = self.counts.samples.by_class().iter();
        let mut rows: Vec<ClassRow> =
            by_class.map(|(&class, counts)| ClassRow::new(class, counts, reference.get(&class))).collect();
        rows.sort_by(|a, b| b.merit().partial_cmp(&a.merit()).unwrap_or(std::cmp::Ordering::Equal));
        rows
    }
}

fn logits(features: &Features) -> Result<Tensor> {
    let logits = features.logits.as_ref().ok_or(Error::Internal("a classifier without logits"))?;
    Ok(logits.shallow_clone())
}

/// Adds the classifier's answers; images of a reference may be without classes.
fn add(counts: &mut ClassAgreement, logits: Option<&Tensor>, items: &[Item]) -> Result<()> {
    let Some(logits) = logits else { return Ok(()) };
    let classes: Option<Vec<i64>> = items.iter().map(|item| item.class).collect();
    match classes {
        Some(classes) => counts.update(logits, &classes),
        None => Ok(()),
    }
}

fn side(
    counts: &ClassAgreement,
    scores: &AgreementScores,
    inputs: &ScoreInputs,
    [prefix, whose]: [&str; 2],
) -> Vec<Score> {
    let n = counts.among().len();
    let score = |suffix: &str, value: f64, what: &str| {
        let name = format!("{prefix}{AGREEMENT}{suffix}");
        let score = inputs.context.score(&name, value, Better::Higher, &format!("{what}{whose}"));
        let score = Score { samples: scores.images, ..score.without_reference() };
        match counts.outside() {
            0 => score,
            outside => score.with_note(format!("{outside} images of other classes are passed over")),
        }
    };
    vec![
        score("", scores.top1, "share of images whose class is the first guess of all"),
        score("_top5", scores.top5, "share of images whose class is among the first five guesses of all"),
        score("_among", scores.among_top1, &format!("share of images, first guess among {n} classes")),
        score("_among_top5", scores.among_top5, &format!("share of images, first five among {n} classes")),
        score(
            "_half",
            scores.half_right as f64,
            &format!("of {} classes those with at least half right among {n}", scores.classes),
        ),
    ]
}
