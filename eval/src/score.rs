//! A score with everything that decides whether it may be compared with another.

use backbones::FeatureId;
use serde::Serialize;

use crate::titles;
use crate::{Error, Result};

/// The direction in which a score is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Higher is better.
    Higher,
    /// Lower is better.
    Lower,
}

impl std::fmt::Display for Better {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Better::Higher => "higher",
            Better::Lower => "lower",
        })
    }
}

/// One score.
#[derive(Debug, Clone, Serialize)]
pub struct Score {
    /// Name of the metric, or of a part of it.
    pub name: String,
    /// The number; `null` if it is infinite. See [`Score::check`].
    pub value: Option<f64>,
    /// Standard deviation over chunks or subsets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// 95 % interval for another choice of images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// Direction in which it is better.
    pub better: Better,
    /// The public variant of the metric that it is.
    pub variant: String,
    /// The network whose features it reads; none for scores of pixels.
    pub network: Option<FeatureId>,
    /// Number of images judged.
    pub samples: u64,
    /// Number of images compared with, if known.
    pub reference: Option<u64>,
    /// SHA-256 of the reference: see the report's `reference`.
    pub reference_sha256: Option<String>,
    /// Resize method of the images.
    pub resize: String,
    /// Conversion of the images to 8-bit RGB.
    pub image_conversion: String,
    /// False if the weights are not public or images were skipped.
    pub comparable: bool,
    /// Other notes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Scores of chunks or subsets, for plots.
    #[serde(skip)]
    pub series: Option<Vec<f64>>,
}

/// Facts that all scores of a run share.
#[derive(Debug, Clone, Default)]
pub struct ScoreContext {
    /// Number of images judged.
    pub samples: u64,
    /// Number of images compared with.
    pub reference: Option<u64>,
    /// SHA-256 of the reference.
    pub reference_sha256: Option<String>,
    /// Resize method of the images.
    pub resize: String,
    /// Conversion of the images to 8-bit RGB.
    pub image_conversion: String,
    /// Whether images were skipped.
    pub incomplete: bool,
}

impl ScoreContext {
    /// A score of this run.
    pub fn score(&self, name: &str, value: f64, better: Better, variant: &str) -> Score {
        Score {
            name: name.to_owned(),
            value: (!value.is_infinite()).then_some(value),
            std: None,
            interval: None,
            better,
            variant: variant.to_owned(),
            network: None,
            samples: self.samples,
            reference: self.reference,
            reference_sha256: self.reference_sha256.clone(),
            resize: self.resize.clone(),
            image_conversion: self.image_conversion.clone(),
            comparable: !self.incomplete,
            note: None,
            series: None,
        }
    }
}

impl Score {
    /// Checks that it is a number that images can have.
    ///
    /// # Errors
    /// Returns an error if it is NaN; if it is infinite, which only PSNR is (of equal images); or
    /// if it is so large that it was computed from numbers which are not features.
    pub fn check(&self) -> Result<()> {
        const LARGEST: f64 = 1e30;
        let name = || self.name.clone();
        match self.value {
            None if self.name != "psnr" => Err(Error::TooLarge { name: name(), found: "infinite".into() }),
            Some(value) if value.abs() > LARGEST => {
                Err(Error::TooLarge { name: name(), found: format!("{value:.3e}") })
            }
            Some(value) if value.is_nan() => Err(Error::NotANumber { name: name() }),
            _ => Ok(()),
        }
    }

    /// Sets the network whose features it reads.
    pub fn of(mut self, network: Option<&FeatureId>) -> Self {
        self.name = titles::name(&self.name, network).to_owned();
        self.comparable &= network.is_none_or(|n| n.comparable);
        self.network = network.cloned();
        self
    }

    /// Display name, with the network if the name does not imply it.
    pub fn label(&self) -> String {
        titles::label(&self.name, self.network.as_ref())
    }

    /// Sets the standard deviation.
    pub fn with_std(mut self, std: f64) -> Self {
        self.std = Some(std);
        self
    }

    /// Sets the scores of chunks or subsets.
    pub fn with_series(mut self, series: Vec<f64>) -> Self {
        self.series = Some(series);
        self
    }

    /// Sets the interval.
    pub fn with_interval(mut self, interval: Option<[f64; 2]>) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the note.
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Removes the reference.
    pub fn without_reference(mut self) -> Self {
        (self.reference, self.reference_sha256) = (None, None);
        self
    }

    /// Sets the number of images compared with.
    pub fn against(mut self, images: Option<u64>) -> Self {
        self.reference = images;
        self
    }
}
