//! A score with all that decides whether it may be compared with another.

use anyhow::Result;
use backbones::FeatureId;
use serde::Serialize;

use super::titles;
use crate::failure::Failure;

/// One score.
#[derive(Debug, Clone, Serialize)]
pub struct Value {
    /// As `--metrics` names it, or a part of it.
    pub name: String,
    /// The score; `null` where it is infinite. Values that are no number are errors: [`Value::must_be_a_number`].
    pub value: Option<f64>,
    /// Spread over chunks or subsets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Where it would lie with other images, with 95 % confidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// `higher` or `lower`.
    pub better: &'static str,
    /// Which of the public variants it is.
    pub variant: String,
    /// Whose features; none for scores of pixels.
    pub network: Option<FeatureId>,
    /// Images judged.
    pub samples: u64,
    /// Images compared with, where known.
    pub reference: Option<u64>,
    /// Which reference: see the report's `reference`.
    pub reference_sha256: Option<String>,
    /// How images were brought to their size.
    pub resize: String,
    /// How images became 8-bit RGB.
    pub image_conversion: String,
    /// False where the weights are not public or images were left out.
    pub comparable: bool,
    /// What else is to be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What all scores of a run share.
#[derive(Debug, Clone, Default)]
pub struct Setting {
    /// Images judged.
    pub samples: u64,
    /// Images compared with.
    pub reference: Option<u64>,
    /// Of the reference.
    pub reference_sha256: Option<String>,
    /// How images were resized.
    pub resize: String,
    /// How images became 8-bit RGB.
    pub image_conversion: String,
    /// Whether images were left out.
    pub incomplete: bool,
}

/// Which direction is better.
pub const HIGHER: &str = "higher";
/// Which direction is better.
pub const LOWER: &str = "lower";

impl Setting {
    /// A score under this setting.
    pub fn value(&self, name: &str, value: f64, better: &'static str, variant: &str) -> Value {
        Value {
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
        }
    }
}

impl Value {
    /// Refuses NaN, which no score is, infinity, which of all scores only PSNR is (of equal images), and what is so large that
    /// it comes of numbers which are no features.
    pub fn must_be_a_number(&self) -> Result<()> {
        const LARGEST: f64 = 1e30;
        let too_large = |found: String| {
            Err(Failure::new(format!("{} is {found}", self.name))
                .hint(
                    "the numbers that it is computed from are too large to be of images; look at their file",
                )
                .into())
        };
        match self.value {
            None if self.name != "psnr" => too_large("infinite".into()),
            Some(value) if value.abs() > LARGEST => too_large(format!("{value:.3e}")),
            Some(value) if value.is_nan() => Err(Failure::new(format!("{} is not a number", self.name))
                .hint("some image or weight holds values that are not finite")
                .into()),
            _ => Ok(()),
        }
    }

    /// Of this network's features.
    pub fn of(mut self, network: Option<&FeatureId>) -> Self {
        self.name = titles::name(&self.name, network).to_owned();
        self.comparable &= network.is_none_or(|n| n.comparable);
        self.network = network.cloned();
        self
    }

    /// Its name for people, with the network where the name does not imply it.
    pub fn label(&self) -> String {
        titles::label(&self.name, self.network.as_ref())
    }

    /// With its spread.
    pub fn spread(mut self, std: f64) -> Self {
        self.std = Some(std);
        self
    }

    /// With its interval.
    pub fn within(mut self, interval: Option<[f64; 2]>) -> Self {
        self.interval = interval;
        self
    }

    /// With something to be known.
    pub fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Without a reference.
    pub fn alone(mut self) -> Self {
        (self.reference, self.reference_sha256) = (None, None);
        self
    }

    /// Compared with so many images.
    pub fn against(mut self, images: Option<u64>) -> Self {
        self.reference = images;
        self
    }
}
