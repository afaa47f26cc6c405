//! Checks of requests, before they are queued.

use ar_model::ConditioningConfig;
use data::ClassTable;
use generate::{ConditionName, DrawConfig, Identity, ModelId, Provenance, RunSettings};
use sampler::{DecodeMode, SamplingConfig};
use settings::{Rng, SamplingSettings};

use crate::api::{ImageRequest, Refused, Request, Subject};
use crate::error::Result;
use crate::job::Accepted;

/// Sides of an image, as of `gen sample`.
const SIZES: std::ops::RangeInclusive<i64> = 1..=8192;
/// Most previews of an image.
const PREVIEWS: u32 = 3;

/// Everything that decides whether a request can be served.
#[derive(Debug)]
pub(crate) struct Rules {
    classes: Option<ClassTable>,
    /// Whether guidance has a null condition.
    null: bool,
    /// The model's own settings.
    defaults: SamplingSettings,
    /// Settings of an image, but for what requests say.
    run: RunSettings,
}

impl Rules {
    /// Rules of a model, with the encoder of its prompts.
    ///
    /// # Errors
    /// Returns an error if the model's settings cannot be read.
    pub fn new(
        identity: &Identity,
        classes: Option<ClassTable>,
        conditioning: ConditioningConfig,
        text_encoder: Option<ModelId>,
    ) -> Result<Self> {
        let defaults = identity.config.pair.sampling_defaults()?;
        let draw = DrawConfig {
            sampling: SamplingConfig::from_settings(defaults.clone())?,
            rng: Rng::Image,
            seed: 0,
            mode: DecodeMode::Stepwise,
            size: None,
        };
        let run = identity.settings(&draw, text_encoder, None)?;
        let null = !matches!(conditioning, ConditioningConfig::Class { null_class: false, .. });
        Ok(Rules { classes, null, defaults, run })
    }

    /// Settings of images that say nothing else, complete.
    pub fn complete_defaults(&self) -> &SamplingSettings {
        &self.run.sampling
    }

    /// Checks all images of a request.
    pub fn accept(&self, request: &Request) -> Result<Vec<Accepted>, Refused> {
        if request.images.is_empty() {
            return Err(invalid("n", "a request has at least one image"));
        }
        if request.partial_images > PREVIEWS {
            let message = format!("{} previews, at most {PREVIEWS} are made", request.partial_images);
            return Err(invalid("partial_images", message));
        }
        request.images.iter().map(|image| self.image(image)).collect()
    }

    fn image(&self, image: &ImageRequest) -> Result<Accepted, Refused> {
        let condition = self.condition(&image.subject)?;
        let config = self.sampling(image)?;
        if self.classes.is_some() && image.negative_prompt.is_some() {
            return Err(invalid("negative_prompt", "the model draws classes, not prompts"));
        }
        if let Some(size) = image.size.filter(|size| !SIZES.contains(size)) {
            let message = format!("{size} pixels; expected {} to {}", SIZES.start(), SIZES.end());
            return Err(invalid("size", message));
        }
        let run = RunSettings {
            sampling: config.settings(),
            seed: image.seed,
            size: image.size.unwrap_or(self.run.size),
            negative_prompt: image.negative_prompt.clone(),
            ..self.run.clone()
        };
        Ok(Accepted {
            subject: image.subject.clone(),
            negative: image.negative_prompt.clone(),
            config,
            provenance: Provenance { run, index: image.index, condition },
        })
    }

    fn condition(&self, subject: &Subject) -> Result<ConditionName, Refused> {
        match (subject, &self.classes) {
            (Subject::Class(index), Some(classes)) => {
                let class = classes.resolve(&index.to_string());
                let class = class.map_err(|e| invalid("class", e.to_string()))?;
                Ok(ConditionName {
                    class: Some(class.index),
                    class_name: Some(class.name.clone()),
                    prompt: None,
                })
            }
            (Subject::Prompt(text), None) => {
                Ok(ConditionName { prompt: Some(text.clone()), ..ConditionName::default() })
            }
            (Subject::Class(_), None) => Err(invalid("class", "the model draws prompts, not classes")),
            (Subject::Prompt(_), Some(_)) => Err(invalid("prompt", "the model draws classes, not prompts")),
        }
    }

    fn sampling(&self, image: &ImageRequest) -> Result<SamplingConfig, Refused> {
        let settings = image.sampling.clone().or(self.defaults.clone());
        let config = SamplingConfig::from_settings(settings);
        let config = config.map_err(|e| invalid(setting_of(&e), e.to_string()))?;
        if config.guidance.active() && !self.null {
            let message =
                format!("{}; guidance needs a null class, which the model lacks", config.guidance.scale);
            return Err(invalid("cfg", message));
        }
        Ok(config)
    }
}

/// Name of the setting that an error is about.
fn setting_of(error: &sampler::Error) -> &'static str {
    match error {
        sampler::Error::Setting { what, .. } | sampler::Error::NoWindow { what, .. } => what,
        sampler::Error::UnknownSchedule { .. } => "cfg_schedule",
        _ => "sampling",
    }
}

fn invalid(param: &'static str, message: impl Into<String>) -> Refused {
    Refused::Invalid { param, message: message.into() }
}
