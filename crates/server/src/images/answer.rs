//! Answers and events, in OpenAI's form with a few keys more.

use serde::Serialize;
use utoipa::ToSchema;

use super::encode::{Format, base64_of};
use super::plan::Plan;
use crate::app::blocking;
use crate::clock::unix_seconds;
use crate::error::Result;
use generate::{Picture, Provenance};

/// Images, whole.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImagesResponse {
    /// Seconds since 1970.
    pub created: u64,
    /// The images.
    pub data: Vec<ImageData>,
    /// `opaque`.
    pub background: &'static str,
    /// `png`, `jpeg` or `webp`.
    pub output_format: &'static str,
    /// Width and height in pixels, `256x256`.
    pub size: String,
    /// Codes and tokens.
    pub usage: Usage,
}

/// An image.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImageData {
    /// The file in base 64.
    pub b64_json: String,
    /// Its seed.
    pub seed: u64,
    /// Its number within the seed.
    pub index: u64,
}

/// Codes drawn and tokens read.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct Usage {
    /// Sum of both.
    pub total_tokens: u64,
    /// Tokens of prompts, before padding.
    pub input_tokens: u64,
    /// Codes drawn; those of null rows are not counted.
    pub output_tokens: u64,
    /// Of the input.
    pub input_tokens_details: InputDetails,
    /// Of the output.
    pub output_tokens_details: OutputDetails,
}

/// Kinds of input.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
#[schema(as = InputTokensDetails)]
pub struct InputDetails {
    /// Tokens of text.
    pub text_tokens: u64,
    /// Codes of given images: none.
    pub image_tokens: u64,
}

/// Kinds of output.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
#[schema(as = OutputTokensDetails)]
pub struct OutputDetails {
    /// Tokens of text: none.
    pub text_tokens: u64,
    /// Codes.
    pub image_tokens: u64,
}

impl Usage {
    /// Of so many tokens of text and codes.
    pub fn of(text: u64, codes: u64) -> Self {
        Usage {
            total_tokens: text + codes,
            input_tokens: text,
            output_tokens: codes,
            input_tokens_details: InputDetails { text_tokens: text, image_tokens: 0 },
            output_tokens_details: OutputDetails { text_tokens: 0, image_tokens: codes },
        }
    }
}

/// Keys that both events of pictures share.
#[derive(Debug, Serialize, ToSchema)]
pub struct Shown {
    /// The file in base 64.
    pub b64_json: String,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Width and height in pixels.
    pub size: String,
    /// `auto`.
    pub quality: &'static str,
    /// `opaque`.
    pub background: &'static str,
    /// `png`, `jpeg` or `webp`.
    pub output_format: &'static str,
    /// Number of the image within the request, from 0.
    pub image_index: usize,
}

impl Shown {
    /// A picture of a plan, as a file.
    ///
    /// # Errors
    /// Returns an error if it cannot be encoded.
    pub async fn of(
        plan: &Plan,
        image_index: usize,
        picture: Picture,
        provenance: Option<Provenance>,
    ) -> Result<Self> {
        let b64_json = file(plan.format, picture, provenance).await?;
        let size = size_of(plan);
        let (created_at, output_format) = (unix_seconds(), plan.format.name());
        Ok(Shown {
            b64_json,
            created_at,
            size,
            quality: "auto",
            background: "opaque",
            output_format,
            image_index,
        })
    }
}

/// A preview of an image: the codes so far, the rest filled by a draft.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartialImageEvent {
    /// `image_generation.partial_image`.
    pub r#type: &'static str,
    /// Number of the preview, from 0.
    pub partial_image_index: u32,
    /// The picture.
    #[serde(flatten)]
    pub shown: Shown,
}

/// A finished image.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompletedEvent {
    /// `image_generation.completed`.
    pub r#type: &'static str,
    /// The picture.
    #[serde(flatten)]
    pub shown: Shown,
    /// Its seed.
    pub seed: u64,
    /// Its number within the seed.
    pub index: u64,
    /// Of this image.
    pub usage: Usage,
}

/// The request waits.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueuedEvent {
    /// `gen.queued`.
    pub r#type: &'static str,
    /// Images in front.
    pub ahead: usize,
    /// Estimate of the time to the last image of the request.
    pub eta_seconds: f64,
}

/// An image has a slot.
#[derive(Debug, Serialize, ToSchema)]
pub struct StartedEvent {
    /// `gen.started`.
    pub r#type: &'static str,
    /// Number of the image within the request.
    pub image_index: usize,
}

/// Codes were drawn.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepEvent {
    /// `gen.step`.
    pub r#type: &'static str,
    /// Number of the image within the request.
    pub image_index: usize,
    /// Codes drawn.
    pub step: i64,
    /// Codes of an image.
    pub of: i64,
}

/// A picture as a file in base 64, encoded on a thread of its own.
///
/// # Errors
/// Returns an error if it cannot be encoded.
pub async fn file(format: Format, picture: Picture, provenance: Option<Provenance>) -> Result<String> {
    blocking(move || Ok(base64_of(&format.encode(&picture, provenance.as_ref())?))).await
}

/// Width and height.
pub fn size_of(plan: &Plan) -> String {
    format!("{0}x{0}", plan.side)
}
