//! Forms of the bodies of both routes.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::app::App;
use crate::body::{self, JSON};
use crate::config::ServerConfig;
use crate::error::{ApiError, Result};

/// Media types of safetensors files: Hugging Face's, and any file's.
const SAFETENSORS: [&str; 2] = ["application/vnd.safetensors", "application/octet-stream"];
/// Most images of a request.
pub const MOST_IMAGES: usize = 64;

/// Form of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// A JSON document.
    #[default]
    Json,
    /// A safetensors file.
    Safetensors,
}

/// The answer to a request, if it is admitted, made on a thread that may block.
pub async fn admitted(
    app: &Arc<App>,
    request: Request,
    answer: fn(&App, Raw) -> Result<Response>,
) -> Result<Response> {
    let job = app.admit_codes()?;
    let raw = Raw::read(request, &app.config).await?;
    let of_job = Arc::clone(app);
    job.run(move || answer(&of_job, raw)).await
}

/// A body that arrived whole, not looked into yet: what is inside may take many times its size.
pub struct Raw {
    bytes: Vec<u8>,
    /// The part of the URL behind `?`; `None` for JSON.
    options: Option<String>,
}

/// A body: JSON, or a safetensors file with its options in the URL.
pub enum Input<J, O> {
    /// JSON.
    Json(J),
    /// A file.
    File(Vec<u8>, O),
}

impl Raw {
    /// Reads the body.
    ///
    /// # Errors
    /// Returns an error if it is of another type, too large or too late.
    pub async fn read(request: Request, config: &ServerConfig) -> Result<Self> {
        let found = body::media_type(request.headers());
        let is = |expected: &str| found.is_some_and(|found| found.eq_ignore_ascii_case(expected));
        let query = request.uri().query().unwrap_or("").to_owned();
        let options = match () {
            () if is(JSON) && query.is_empty() => None,
            () if is(JSON) => {
                let message = "Options in the URL are for safetensors bodies; JSON has them as fields.";
                return Err(ApiError::body(message));
            }
            () if SAFETENSORS.into_iter().any(is) => Some(query),
            () => return Err(ApiError::media_type(found, &[JSON, SAFETENSORS[0], SAFETENSORS[1]])),
        };
        Ok(Raw { bytes: body::read(request, config.max_body, config).await?, options })
    }

    /// Looks into the body.
    ///
    /// # Errors
    /// Returns an error if a field or an option does not fit.
    pub fn parse<J: DeserializeOwned, O: DeserializeOwned>(self) -> Result<Input<J, O>> {
        let Some(options) = self.options else { return Ok(Input::Json(body::parse(&self.bytes)?)) };
        let options = serde_urlencoded::from_str(&options)
            .map_err(|error| ApiError::body(format!("The options in the URL do not fit: {error}.")))?;
        Ok(Input::File(self.bytes, options))
    }
}

/// Refuses no images and too many.
///
/// # Errors
/// Returns an error if there are none or too many.
pub fn check_count(param: &str, found: usize) -> Result<()> {
    match found {
        1..=MOST_IMAGES => Ok(()),
        _ => {
            let message = format!("Invalid '{param}': expected 1 to {MOST_IMAGES} of them, found {found}.");
            Err(ApiError::invalid(param, "invalid_value", message))
        }
    }
}

/// A safetensors file as the answer.
pub fn file(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, SAFETENSORS[0])], bytes).into_response()
}

/// A fault of this side: a tensor that is not as it must be.
pub fn internal(error: impl std::fmt::Display) -> ApiError {
    ApiError::internal(format!("The server failed at this request: {error}"), true)
}
