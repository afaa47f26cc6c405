//! Metrics of pairs: the mean over images of a score of each with its original.

use std::collections::BTreeMap;

use backbones::FeatureId;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use settings::Metric;
use tch::Tensor;

use crate::batch::{BatchFeatures, EvalBatch, ImagePair, Item, MetricValues};
use crate::histogram::Histogram;
use crate::math::mean::Mean;
use crate::math::pixels::{PixelPair, to_vec};
use crate::metric::{Distribution, MetricState, ScoreInputs};
use crate::score::{Better, Score};
use crate::{Error, Result};

/// Report style of a pairwise metric's scores.
#[derive(Debug, Clone, Copy)]
pub struct PairStyle {
    /// The metric.
    pub metric: Metric,
    /// Direction in which it is better.
    pub better: Better,
    /// Its public variant.
    pub variant: &'static str,
    /// Report of single images; `None` for a variant of a metric that is already shown.
    pub show: Option<ShowImages>,
}

/// Report style of single images' scores.
#[derive(Debug, Clone, Copy)]
pub struct ShowImages {
    /// Axis of the plot.
    pub unit: &'static str,
    /// Ends of the axis.
    pub range: (f64, f64),
    /// Name before a class's mean.
    pub title: &'static str,
    /// Unit behind a class's mean.
    pub suffix: &'static str,
    /// Digits of a class's mean.
    pub digits: usize,
}

/// Scores of a batch among the values of a metric, (B) float64.
const SCORES: &str = "scores";

/// Sums over pairs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PairSums {
    count: u64,
    mean: Mean,
    histogram: Option<Histogram>,
    classes: BTreeMap<i64, Mean>,
}

impl PairSums {
    /// Sums before the first pair.
    pub fn new(range: Option<(f64, f64)>) -> Self {
        let histogram = range.map(|(low, high)| Histogram::new(low, high));
        PairSums { count: 0, mean: Mean::default(), histogram, classes: BTreeMap::new() }
    }

    /// Adds the scores of a batch. Infinite ones are counted and left out of the means: one would
    /// make them infinite.
    pub fn add(&mut self, values: &[f64], items: &[Item]) {
        for (&value, item) in values.iter().zip(items) {
            self.count += 1;
            if value.is_infinite() {
                continue;
            }
            self.mean.add(value);
            if let Some(histogram) = &mut self.histogram {
                histogram.add(value);
                item.class.into_iter().for_each(|class| self.classes.entry(class).or_default().add(value));
            }
        }
    }

    /// The scores of a batch as values of a metric.
    pub fn values(scores: &[f64]) -> MetricValues {
        MetricValues::from([(SCORES.to_owned(), Tensor::from_slice(scores))])
    }

    /// Adds what [`PairSums::values`] made, if there is any.
    ///
    /// # Errors
    /// Returns an error if the scores cannot be read.
    pub fn add_values(&mut self, values: &MetricValues, items: &[Item]) -> Result<()> {
        if let Some(scores) = values.get(SCORES) {
            self.add(&to_vec(scores)?, items);
        }
        Ok(())
    }

    /// Adds other sums.
    pub fn merge(&mut self, other: &PairSums) {
        self.count += other.count;
        self.mean.merge(&other.mean);
        if let (Some(mine), Some(theirs)) = (&mut self.histogram, &other.histogram) {
            mine.merge(theirs);
        }
        for (class, mean) in &other.classes {
            self.classes.entry(*class).or_default().merge(mean);
        }
    }

    /// Number of pairs.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of pairs with an infinite score.
    pub fn infinite(&self) -> u64 {
        self.count - self.mean.count()
    }

    /// The mean; infinite if all scores are.
    ///
    /// # Errors
    /// Returns an error before the first pair.
    pub fn mean(&self) -> Result<f64> {
        match self.count {
            0 => Err(Error::Nothing("no pair of images was compared")),
            _ => Ok(self.mean.value().unwrap_or(f64::INFINITY)),
        }
    }

    /// The mean of a class in words.
    pub fn class_figure(&self, class: i64, show: &ShowImages) -> Option<String> {
        let value = self.classes.get(&class)?.value()?;
        Some(format!("{} {value:.*}{}", show.title, show.digits, show.suffix))
    }

    /// The scores of single images.
    pub fn distribution(&self, metric: Metric, show: &ShowImages) -> Option<Distribution> {
        let histogram = self.histogram.clone()?;
        Some(Distribution::Images { name: metric.name(), unit: show.unit, histogram })
    }
}

/// Scores (B) of the pairs of a batch.
pub type PairScore = Box<dyn Fn(&EvalBatch, &ImagePair) -> Result<Vec<f64>>>;

/// A pairwise metric.
pub struct PairMetric {
    style: PairStyle,
    score: PairScore,
    network: Option<FeatureId>,
    sums: PairSums,
}

impl PairMetric {
    /// A metric of pixels.
    pub fn of_pixels(style: PairStyle, score: fn(&PixelPair) -> Result<Vec<f64>>) -> Box<dyn MetricState> {
        PairMetric::boxed(style, Box::new(move |_, pair| score(&pair.pixels)), None)
    }

    /// A metric of a network, by the function that scores with it.
    pub fn boxed(style: PairStyle, score: PairScore, network: Option<FeatureId>) -> Box<dyn MetricState> {
        let sums = PairSums::new(style.show.map(|show| show.range));
        Box::new(PairMetric { style, score, network, sums })
    }
}

impl MetricState for PairMetric {
    fn network(&self) -> Option<&FeatureId> {
        self.network.as_ref()
    }

    fn measure(&self, batch: &EvalBatch, _: &BatchFeatures) -> Result<MetricValues> {
        match &batch.pair {
            Some(pair) => Ok(PairSums::values(&(self.score)(batch, pair)?)),
            None => Ok(MetricValues::new()),
        }
    }

    fn add(&mut self, values: &MetricValues, items: &[Item]) -> Result<()> {
        self.sums.add_values(values, items)
    }

    fn save(&self) -> Result<Json> {
        Ok(serde_json::to_value(&self.sums)?)
    }

    fn merge(&mut self, saved: &Json) -> Result<()> {
        self.sums.merge(&PairSums::deserialize(saved)?);
        Ok(())
    }

    fn scores(&self, inputs: &ScoreInputs) -> Result<Vec<Score>> {
        let PairStyle { metric, better, variant, .. } = self.style;
        let score = inputs.context.score(metric.name(), self.sums.mean()?, better, variant);
        let score = score.of(self.network.as_ref()).against(Some(self.sums.count()));
        Ok(vec![match self.sums.infinite() {
            0 => score,
            n => score.with_note(format!("{n} identical pairs are infinite and left out of the mean")),
        }])
    }

    fn warnings(&self) -> Vec<String> {
        let title = self.style.metric.title();
        match self.sums.infinite() {
            0 => vec![],
            n => vec![format!("{n} pairs are identical: their infinite {title} is left out of the mean")],
        }
    }

    fn distribution(&self) -> Option<Distribution> {
        self.sums.distribution(self.style.metric, &self.style.show?)
    }

    fn class_figure(&self, class: i64) -> Option<String> {
        self.sums.class_figure(class, &self.style.show?)
    }
}
