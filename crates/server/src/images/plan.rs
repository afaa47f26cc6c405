//! A request, checked: the images to draw and the form of the answer.

use std::sync::Arc;

use base::Hint as _;
use data::{Class, ClassTable};
use engine::{ImageRequest, ModelInfo, Subject};
use settings::SamplingSettings;

use super::encode::Format;
use super::request::{ClassName, CreateImageRequest};
use crate::clock::fresh_number;
use crate::error::{ApiError, Result};
use crate::models::Served;

/// Most images of a request.
const MOST_IMAGES: i64 = 10;
/// Most partial images of an image.
const MOST_PARTIALS: i64 = 3;
/// Most characters of a prompt.
const MOST_CHARACTERS: usize = 32_000;
/// Largest side that smaller images are resized to, in pixels.
const LARGEST_SIDE: i64 = 2048;

/// Images to draw, and the form of the answer.
pub struct Plan {
    /// The model.
    pub served: Arc<Served>,
    /// The images.
    pub images: Vec<ImageRequest>,
    /// Side of the images in pixels.
    pub side: i64,
    /// Form of the image files.
    pub format: Format,
    /// Whether the seed is the client's choice.
    pub seeded: bool,
    /// Answer as a stream.
    pub stream: bool,
    /// Previews of each image.
    pub partial_images: u32,
    /// Tell of the queue and the steps.
    pub progress: bool,
}

impl Plan {
    /// The plan of a request.
    ///
    /// # Errors
    /// Returns an error if a field cannot be honoured.
    pub fn of(request: &CreateImageRequest, served: Arc<Served>) -> Result<Plan> {
        let info = served.engine.info();
        let n = within("n", request.n.unwrap_or(1), 1, MOST_IMAGES)?;
        check_fixed(request)?;
        let format = Format::of(request.output_format.as_deref(), request.output_compression)?;
        let stream = request.stream.unwrap_or(false);
        let partial_images = within("partial_images", request.partial_images.unwrap_or(0), 0, MOST_PARTIALS)?;
        let progress = request.progress.unwrap_or(false);
        needs_stream("partial_images", partial_images > 0, stream)?;
        needs_stream("progress", progress, stream)?;
        let size = side(request.size.as_deref(), info.side)?;
        let image = ImageRequest {
            subject: subject(request, info)?,
            negative_prompt: negative_prompt(request, info)?,
            sampling: sampling(request),
            seed: request.seed.unwrap_or_else(random_seed),
            index: 0,
            size,
        };
        let images = (0..n as u64).map(|index| ImageRequest { index, ..image.clone() }).collect();
        Ok(Plan {
            images,
            side: size.unwrap_or(info.side),
            format,
            seeded: request.seed.is_some(),
            stream,
            partial_images: partial_images as u32,
            progress,
            served,
        })
    }
}

/// A seed that programs with 64-bit floats read back unchanged.
fn random_seed() -> u64 {
    fresh_number() >> 32
}

fn within(param: &str, value: i64, least: i64, most: i64) -> Result<i64> {
    if (least..=most).contains(&value) { Ok(value) } else { Err(ApiError::range(param, value, least, most)) }
}

fn needs_stream(param: &str, asked: bool, stream: bool) -> Result<()> {
    if asked && !stream {
        let message = format!("Invalid '{param}': it needs `stream: true`.");
        return Err(ApiError::invalid(param, "invalid_value", message));
    }
    Ok(())
}

/// Fields of OpenAI's that have one supported meaning here.
fn check_fixed(request: &CreateImageRequest) -> Result<()> {
    let fixed: [(&str, &Option<String>, &[&str]); 4] = [
        ("quality", &request.quality, &["auto"]),
        ("response_format", &request.response_format, &["b64_json"]),
        ("background", &request.background, &["auto", "opaque"]),
        ("moderation", &request.moderation, &["auto", "low"]),
    ];
    for (param, value, supported) in fixed {
        match value.as_deref() {
            Some(value) if !supported.contains(&value) => {
                return Err(ApiError::value(param, value, supported));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The side to resize to; `None` for the model's own.
fn side(size: Option<&str>, native: i64) -> Result<Option<i64>> {
    let Some(text) = size.filter(|text| *text != "auto") else { return Ok(None) };
    let number = |text: &str| text.parse::<i64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let side = text.split_once('x').and_then(|(w, h)| Some((number(w)?, number(h)?)));
    match side {
        Some((w, h)) if w == h && (1..=LARGEST_SIDE.max(native)).contains(&w) => {
            Ok(Some(w).filter(|side| *side != native))
        }
        _ => {
            let message = format!(
                "Invalid value: '{}'. Supported values are: 'auto' ('{native}x{native}', the size of this model) and \
                 other squares, which it is resized to, up to '{LARGEST_SIDE}x{LARGEST_SIDE}'.",
                text.chars().take(100).collect::<String>()
            );
            Err(ApiError::invalid("size", "invalid_value", message))
        }
    }
}

fn sampling(request: &CreateImageRequest) -> SamplingSettings {
    SamplingSettings {
        cfg: request.guidance_scale,
        cfg_schedule: request.cfg_schedule.clone(),
        cfg_start: request.cfg_start,
        cfg_end: request.cfg_end,
        cfg_interval: request.cfg_interval,
        temperature: request.temperature,
        top_k: request.top_k,
        top_p: request.top_p,
        min_p: request.min_p,
        typical_p: request.typical_p,
    }
}

fn subject(request: &CreateImageRequest, info: &ModelInfo) -> Result<Subject> {
    let prompt = request.prompt.as_deref().map(|text| short("prompt", text)).transpose()?;
    match (&info.classes, &request.class, prompt) {
        (Some(table), class, prompt) => class_of(table, class.as_ref(), prompt).map(Subject::Class),
        (None, Some(_), _) => {
            let message = "Invalid 'class': this model draws prompts, not classes.";
            Err(ApiError::invalid("class", "invalid_value", message))
        }
        (None, None, Some(prompt)) => Ok(Subject::Prompt(prompt.to_owned())),
        (None, None, None) => Err(missing("Missing required parameter: 'prompt'.")),
    }
}

/// The class of a request: `class`, or `prompt` as the name of one. An empty prompt is none: some
/// clients must send one.
fn class_of(table: &ClassTable, class: Option<&ClassName>, prompt: Option<&str>) -> Result<i64> {
    let named = prompt.filter(|text| !text.trim().is_empty());
    let found = |param: &str, word: &str| table.resolve(word).map_err(|error| no_class(param, &error));
    let class = class.map(|class| found("class", &class.to_string())).transpose()?;
    let prompt = named.map(|text| found("prompt", text)).transpose()?;
    match (class, prompt) {
        (Some(class), Some(prompt)) if class.index != prompt.index => Err(two_classes(class, prompt)),
        (Some(class), _) | (None, Some(class)) => Ok(class.index),
        (None, None) => {
            Err(missing("Missing required parameter: 'prompt', the name of a class, or 'class'."))
        }
    }
}

fn no_class(param: &str, error: &data::Error) -> ApiError {
    const MOST: usize = 500;
    let hints = error.hints().join("; ");
    let shown: String = hints.chars().take(MOST).collect();
    let rest = if shown.len() < hints.len() { "…" } else { "" };
    let dot = if hints.is_empty() { "" } else { "; " };
    let message = format!("Invalid '{param}': {error}{dot}{shown}{rest}");
    ApiError::invalid(param, "invalid_value", message)
}

fn two_classes(class: &Class, prompt: &Class) -> ApiError {
    let message = format!("'prompt' names class {prompt} and 'class' names {class}; leave one of them out.");
    ApiError::invalid("class", "invalid_value", message)
}

fn missing(message: &str) -> ApiError {
    ApiError::invalid("prompt", "missing_required_parameter", message)
}

fn negative_prompt(request: &CreateImageRequest, info: &ModelInfo) -> Result<Option<String>> {
    match (&request.negative_prompt, &info.classes) {
        (Some(_), Some(_)) => {
            let message = "Invalid 'negative_prompt': this model draws classes, not prompts.";
            Err(ApiError::invalid("negative_prompt", "invalid_value", message))
        }
        (text, _) => text.as_deref().map(|text| Ok(short("negative_prompt", text)?.to_owned())).transpose(),
    }
}

fn short<'t>(param: &str, text: &'t str) -> Result<&'t str> {
    let found = text.chars().count();
    if found <= MOST_CHARACTERS {
        return Ok(text);
    }
    let message = format!(
        "Invalid '{param}': string too long. Expected a string with maximum length {MOST_CHARACTERS}, but got a \
         string with length {found} instead."
    );
    Err(ApiError::invalid(param, "string_above_max_length", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_squares() {
        assert_eq!(side(None, 64).unwrap(), None);
        assert_eq!(side(Some("auto"), 64).unwrap(), None);
        assert_eq!(side(Some("64x64"), 64).unwrap(), None);
        assert_eq!(side(Some("512x512"), 64).unwrap(), Some(512));
        for size in ["64", "64x", "x64", "64x32", "0x0", "-1x-1", "+8x+8", "4096x4096", "64 x 64", ""] {
            let error = side(Some(size), 64).unwrap_err().to_body().error;
            assert_eq!(error.param.as_deref(), Some("size"), "{size}");
        }
    }

    #[test]
    fn a_class_has_one_name() {
        let table = ClassTable::imagenet();
        let index = |index| ClassName::Index(index);
        assert_eq!(class_of(table, None, Some("golden retriever")).unwrap(), 207);
        assert_eq!(class_of(table, Some(&index(207)), Some("")).unwrap(), 207);
        assert_eq!(class_of(table, Some(&index(207)), Some("n02099601")).unwrap(), 207);
        let param = |class: Option<ClassName>, prompt| {
            class_of(table, class.as_ref(), prompt).unwrap_err().to_body().error.param
        };
        assert_eq!(param(Some(index(1)), Some("golden retriever")).as_deref(), Some("class"));
        assert_eq!(param(Some(index(1000)), None).as_deref(), Some("class"));
        assert_eq!(param(None, Some("a golden retreiver")).as_deref(), Some("prompt"));
        assert_eq!(param(None, None).as_deref(), Some("prompt"));
    }
}
