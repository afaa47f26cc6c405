//! The request for images, field by field.

use serde::Deserialize;
use utoipa::ToSchema;

/// A request for images. `null` is as good as absent.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateImageRequest {
    /// Text of the image; for a model of classes the name of one. Required, unless `class` is given.
    #[schema(max_length = 32000)]
    pub prompt: Option<String>,
    /// Name of a model, as `/v1/models` lists them. Default: the first.
    pub model: Option<String>,
    /// Number of images.
    #[schema(minimum = 1, maximum = 10, default = 1)]
    pub n: Option<i64>,
    /// `auto` for the model's own size, or `SIDExSIDE`: other sizes are resized to, bicubically.
    #[schema(default = "auto")]
    pub size: Option<String>,
    /// `auto` alone: a model has one quality.
    #[schema(default = "auto")]
    pub quality: Option<String>,
    /// `b64_json` alone: no file is stored that a URL could lead to.
    #[schema(default = "b64_json")]
    pub response_format: Option<String>,
    /// `png`, which carries its settings, `jpeg` or `webp`.
    #[schema(default = "png")]
    pub output_format: Option<String>,
    /// Quality of a JPEG. PNG and WebP are without loss.
    #[schema(minimum = 0, maximum = 100, default = 100)]
    pub output_compression: Option<i64>,
    /// `opaque` or `auto`.
    #[schema(default = "auto")]
    pub background: Option<String>,
    /// `low` or `auto`; without effect, as nothing is moderated.
    pub moderation: Option<String>,
    /// Answer as a stream of events.
    #[schema(default = false)]
    pub stream: Option<bool>,
    /// Previews of each image, with `stream`.
    #[schema(minimum = 0, maximum = 3, default = 0)]
    pub partial_images: Option<i64>,
    /// Events about the queue and the steps, with `stream`.
    #[schema(default = false)]
    pub progress: Option<bool>,
    /// Without effect.
    #[allow(dead_code)]
    pub user: Option<String>,
    /// Without effect.
    #[allow(dead_code)]
    pub safety_identifier: Option<String>,
    /// Seed; image i is image i of `gen sample --seed`. Default: a random one, which the answer tells.
    pub seed: Option<u64>,
    /// Class by index, WordNet id or name, of a model of classes.
    pub class: Option<ClassName>,
    /// Content to steer away from, of a model of prompts.
    #[schema(max_length = 32000)]
    pub negative_prompt: Option<String>,
    /// Scale of classifier-free guidance; 1 disables it.
    pub guidance_scale: Option<f64>,
    /// Schedule of the guidance, as `gen sample --cfg-schedule`.
    pub cfg_schedule: Option<String>,
    /// Start of the schedule's window.
    pub cfg_start: Option<f64>,
    /// End of the schedule's window.
    pub cfg_end: Option<f64>,
    /// Last guided step; -1 for all.
    pub cfg_interval: Option<i64>,
    /// Softmax temperature.
    pub temperature: Option<f64>,
    /// Number of codes to draw from; 0 for all.
    pub top_k: Option<i64>,
    /// Probability of the codes to draw from; 1 for all.
    pub top_p: Option<f64>,
    /// Least probability relative to the best code's; 0 for all.
    pub min_p: Option<f64>,
    /// Probability of the most typical codes to draw from; 1 for all.
    pub typical_p: Option<f64>,
}

/// A class: its index, or its WordNet id or name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected the index, the WordNet id or the name of a class")]
pub enum ClassName {
    /// Index.
    Index(i64),
    /// WordNet id or name.
    Name(String),
}

impl std::fmt::Display for ClassName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClassName::Index(index) => index.fmt(f),
            ClassName::Name(name) => name.fmt(f),
        }
    }
}
