//! A metric: what it needs, the sums it keeps, the scores that follow. Each metric is one file in
//! `metrics`.

use std::collections::BTreeMap;

use backbones::FeatureId;
use serde_json::Value as Json;
use settings::Metric;
use tch::Device;

use crate::accumulator::FeatureAccumulator;
use crate::batch::{BatchFeatures, EvalBatch, Item, MetricValues};
use crate::class_row::ClassRow;
use crate::histogram::Histogram;
use crate::math::inception_score::Splits;
use crate::math::kernel::KidSettings;
use crate::math::moments::Statistics;
use crate::networks::{NetworkOptions, Role};
use crate::reference_set::Reference;
use crate::rows::FeatureRows;
use crate::score::{Score, ScoreContext};
use crate::{Error, Result};

/// A metric before a run: what it needs, and how it starts.
#[derive(Clone, Copy)]
pub struct MetricSpec {
    /// Data that it reads.
    pub needs: Needs,
    /// Numbers of images that it takes.
    pub minimum: fn(&MetricOptions) -> Minimum,
    /// Its state before the first image, with its networks opened.
    pub start: fn(&MetricSetup) -> Result<Box<dyn MetricState>>,
}

/// Data that a metric reads.
#[derive(Clone, Copy)]
pub struct Needs {
    /// A reference to compare with.
    pub reference: bool,
    /// Each image's original.
    pub pairs: bool,
    /// Each image's prompt.
    pub prompts: bool,
    /// A tokenizer's codes.
    pub codes: bool,
    /// A transformer's prediction of codes.
    pub likelihood: bool,
    /// Features by the network of this role.
    pub features: Option<Role>,
    /// Moments of the features.
    pub moments: bool,
    /// Moments of the spatial features.
    pub spatial: bool,
    /// The feature rows themselves, which stored statistics do not give.
    pub rows: bool,
    /// Class logits.
    pub logits: bool,
    /// Logits of the classes of ImageNet-1k.
    pub imagenet: bool,
    /// Inception Scores over chunks of this many images.
    pub splits: Option<fn(u64) -> Splits>,
    /// Whether the score is biased by the number of images: published values are of 50,000.
    pub biased: bool,
}

impl Needs {
    /// Nothing.
    pub const NOTHING: Needs = Needs {
        reference: false,
        pairs: false,
        prompts: false,
        codes: false,
        likelihood: false,
        features: None,
        moments: false,
        spatial: false,
        rows: false,
        logits: false,
        imagenet: false,
        splits: None,
        biased: false,
    };
    /// Each image's original.
    pub const PAIRS: Needs = Needs { reference: true, pairs: true, ..Needs::NOTHING };
    /// Feature rows of the main network, of both sides.
    pub const ROWS: Needs =
        Needs { reference: true, rows: true, features: Some(Role::Main), ..Needs::NOTHING };
}

/// Options of metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricOptions {
    /// Whether Fréchet distances get an interval.
    pub interval: bool,
    /// Nearest neighbours, instead of each metric's own number.
    pub neighbours: Option<i64>,
    /// KID's subsets.
    pub kid: KidSettings,
}

/// Smallest numbers of images that a metric takes.
pub struct Minimum {
    /// Images judged.
    pub samples: u64,
    /// Images of the reference.
    pub reference: u64,
    /// Hint for fewer images.
    pub hint: &'static str,
}

impl Minimum {
    /// So many images of each side.
    pub fn new(samples: u64, reference: u64) -> Self {
        Minimum { samples, reference, hint: "leave it out of `--metrics`" }
    }

    /// Any number of images.
    pub fn any(_: &MetricOptions) -> Self {
        Minimum::new(0, 0)
    }
}

/// Facts of a run that a metric may need before its first image.
pub struct MetricSetup<'a> {
    /// Options of metrics.
    pub options: &'a MetricOptions,
    /// Networks and their weights.
    pub networks: &'a NetworkOptions,
    /// The network used for each role, where one was chosen instead of the usual one.
    pub role: Option<Role>,
    /// Device of networks.
    pub device: Device,
    /// Entries of the tokenizer's codebook, where images are reconstructed.
    pub codebook_size: Option<i64>,
    /// Classes of ImageNet-1k among which images are judged.
    pub classes: &'a [i64],
}

/// Sums of one metric over the images of a run. Metrics that read accumulated features alone have
/// none of their own.
pub trait MetricState {
    /// The network of its own, if it has one.
    fn network(&self) -> Option<&FeatureId> {
        None
    }

    /// Takes from a batch what the sums need. Of several processes, the one that has the images
    /// does it.
    ///
    /// # Errors
    /// Returns an error if a network fails, or the batch lacks what the metric reads.
    fn measure(&self, _batch: &EvalBatch, _features: &BatchFeatures) -> Result<MetricValues> {
        Ok(MetricValues::new())
    }

    /// Adds the values of a batch and its images. Of several processes, the first does it, in the
    /// order of batches.
    ///
    /// # Errors
    /// Returns an error if the values cannot be added.
    fn add(&mut self, _values: &MetricValues, _items: &[Item]) -> Result<()> {
        Ok(())
    }

    /// The sums, for the file of an interrupted run.
    fn save(&self) -> Result<Json> {
        Ok(Json::Null)
    }

    /// Adds the sums that [`MetricState::save`] wrote for other images of the run.
    fn merge(&mut self, _saved: &Json) -> Result<()> {
        Ok(())
    }

    /// The scores.
    fn scores(&self, inputs: &ScoreInputs) -> Result<Vec<Score>>;

    /// Notes about the scores.
    fn warnings(&self) -> Vec<String> {
        vec![]
    }

    /// Distribution to plot.
    fn distribution(&self) -> Option<Distribution> {
        None
    }

    /// Figure of the images of one class, such as `SSIM 0.9123`.
    fn class_figure(&self, _class: i64) -> Option<String> {
        None
    }

    /// A classifier's answers by class, the best first.
    fn class_rows(&self) -> Vec<ClassRow> {
        vec![]
    }
}

/// A distribution to plot.
#[derive(Debug, Clone)]
pub enum Distribution {
    /// Scores of single images.
    Images {
        /// Name of the metric.
        name: &'static str,
        /// Unit of the scores.
        unit: &'static str,
        /// The scores.
        histogram: Histogram,
    },
    /// Number of times that each code occurs.
    Codes(Vec<u64>),
}

/// Everything that scores are computed from, beside a metric's own sums.
pub struct ScoreInputs<'a> {
    /// Facts that all scores share.
    pub context: &'a ScoreContext,
    /// Options of metrics.
    pub options: &'a MetricOptions,
    /// Features of the images judged.
    pub samples: &'a BTreeMap<Role, FeatureAccumulator>,
    /// Features of the images compared with.
    pub reference: &'a BTreeMap<Role, FeatureAccumulator>,
    /// The reference, which may have stored statistics.
    pub stored: Option<&'a Reference>,
}

impl<'a> ScoreInputs<'a> {
    /// Features of the images judged.
    pub fn features(&self, role: Role) -> Result<&'a FeatureAccumulator> {
        self.samples.get(&role).ok_or(Error::Nothing("no image was scored"))
    }

    /// Statistics of the reference: those of its file, else of the images that were read; and of
    /// how many images.
    pub fn reference_statistics(&self, role: Role, spatial: bool) -> Result<(Statistics, Option<u64>)> {
        let id = self.features(role)?.id();
        if let Some(reference) = self.stored
            && let Some(stored) = reference.statistics(id, spatial)?
        {
            let images = reference.file.as_ref().and_then(|f| f.tag.as_ref()).map(|t| t.images);
            return Ok((stored.clone(), images));
        }
        let collected = self.reference.get(&role).ok_or(Error::Nothing("there is no reference"))?;
        let statistics =
            if spatial { collected.spatial()?.statistics()? } else { collected.moments()?.statistics()? };
        Ok((statistics, Some(collected.count())))
    }

    /// Scores of the feature rows of both sides.
    pub fn of_rows(
        &self,
        role: Role,
        score: impl FnOnce(&FeatureRows) -> Result<Vec<Score>>,
    ) -> Result<Vec<Score>> {
        let samples = self.features(role)?;
        let reference = self.reference.get(&role);
        let reference = reference.ok_or(Error::Nothing("there are no images of the reference"))?;
        let (a, b) = (samples.rows()?, reference.rows()?);
        let network = Some(samples.id());
        score(&FeatureRows { samples: &a, reference: &b, network, context: self.context })
    }
}

/// A metric of a run and its sums.
pub type RunMetric = (Metric, Box<dyn MetricState>);

/// Scores by a function of the accumulated features alone.
pub struct FromFeatures(pub fn(&ScoreInputs) -> Result<Vec<Score>>);

impl MetricState for FromFeatures {
    fn scores(&self, inputs: &ScoreInputs) -> Result<Vec<Score>> {
        (self.0)(inputs)
    }
}
