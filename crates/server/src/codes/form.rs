//! Forms of the bodies of both routes.

use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

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

/// A body: JSON, or a safetensors file with its options in the URL.
pub enum Input<J, O> {
    /// JSON.
    Json(J),
    /// A file.
    File(Vec<u8>, O),
}

impl<J: DeserializeOwned, O: DeserializeOwned> Input<J, O> {
    /// Reads the body.
    ///
    /// # Errors
    /// Returns an error if it is of another type, too large or too late, or a field or an option does
    /// not fit.
    pub async fn read(request: Request, config: &ServerConfig) -> Result<Self> {
        let found = body::media_type(request.headers());
        let is = |expected: &str| found.is_some_and(|found| found.eq_ignore_ascii_case(expected));
        let query = request.uri().query().unwrap_or("");
        if is(JSON) && !query.is_empty() {
            return Err(ApiError::body(
                "Options in the URL are for safetensors bodies; JSON has them as fields.",
            ));
        }
        if is(JSON) {
            return Ok(Input::Json(body::json(request, config.max_body, config).await?));
        }
        if !SAFETENSORS.into_iter().any(is) {
            return Err(ApiError::media_type(found, &[JSON, SAFETENSORS[0], SAFETENSORS[1]]));
        }
        let options = serde_urlencoded::from_str(query)
            .map_err(|error| ApiError::body(format!("The options in the URL do not fit: {error}.")))?;
        Ok(Input::File(body::read(request, config.max_body, config).await?, options))
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
