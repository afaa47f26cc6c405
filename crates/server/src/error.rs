//! Errors as OpenAI's clients expect them: a status and a body of four keys.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A result of a handler.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

/// An error that a client is told.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    detail: ErrorDetail,
    retry_after: Option<Duration>,
    /// Whether a second try can succeed, where the status alone misleads.
    should_retry: Option<bool>,
}

/// Body of an error.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// An error in OpenAI's form; all four keys are always there.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// A sentence for people.
    pub message: String,
    /// `invalid_request_error` or `server_error`.
    pub r#type: &'static str,
    /// Field of the request that is at fault.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
}

impl ApiError {
    fn new(
        status: StatusCode,
        r#type: &'static str,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        let detail = ErrorDetail { message: message.into(), r#type, param: None, code };
        ApiError { status, detail, retry_after: None, should_retry: None }
    }

    fn of(self, param: &str) -> Self {
        let detail = ErrorDetail { param: Some(param.to_owned()), ..self.detail };
        ApiError { detail, ..self }
    }

    fn after(self, wait: Duration) -> Self {
        ApiError { retry_after: Some(wait), ..self }
    }

    /// 400: a field that cannot be taken.
    pub fn invalid(param: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some(code), message).of(param)
    }

    /// 400: a value that is not among the supported ones.
    pub fn value(param: &str, found: &str, supported: &[&str]) -> Self {
        let found: String = found.chars().take(100).collect();
        let message = format!("Invalid value: '{found}'. Supported values are: {}.", listed(supported));
        Self::invalid(param, "invalid_value", message)
    }

    /// 400: a number out of its range.
    pub fn range(param: &str, found: i64, least: i64, most: i64) -> Self {
        let above = found > most;
        let (code, words, sign, bound) = match above {
            true => ("integer_above_max_value", "above maximum", "<=", most),
            false => ("integer_below_min_value", "below minimum", ">=", least),
        };
        let message = format!(
            "Invalid '{param}': integer {words} value. Expected a value {sign} {bound}, but got {found} instead."
        );
        Self::invalid(param, code, message)
    }

    /// 400: the body as a whole is at fault.
    pub fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, None, message)
    }

    /// 401: no key, or a wrong one.
    pub fn unauthorized(given: bool) -> Self {
        let message = match given {
            true => "Incorrect API key provided.",
            false => "No API key provided. Send it as `Authorization: Bearer KEY`.",
        };
        Self::new(StatusCode::UNAUTHORIZED, INVALID, Some("invalid_api_key"), message)
    }

    /// 404: no model of this name.
    pub fn model_not_found(name: &str, served: &[String]) -> Self {
        let name: String = name.chars().take(200).collect();
        let served: Vec<&str> = served.iter().map(String::as_str).collect();
        let message =
            format!("The model '{name}' does not exist. Models of this server: {}.", listed(&served));
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("model_not_found"), message).of("model")
    }

    /// 404: no such route.
    pub fn not_found(path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        let message = format!("Invalid URL ({path}). `/openapi.json` lists the routes.");
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("unknown_url"), message)
    }

    /// 405: another method is wanted.
    pub fn method_not_allowed(method: &str) -> Self {
        let message = format!("Not allowed to {method} here. `/openapi.json` lists the routes.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, Some("method_not_supported"), message)
    }

    /// 408: the body did not arrive in time.
    pub fn timed_out(limit: Duration) -> Self {
        let message = format!("The request's body did not arrive within {} s.", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, Some("request_timeout"), message)
    }

    /// 413: a body of more bytes than are taken.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("The request's body is larger than {limit} bytes, the most this route takes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, Some("request_too_large"), message)
    }

    /// 415: a body of another media type.
    pub fn media_type(found: Option<&str>, expected: &[&str]) -> Self {
        let found: String = found.unwrap_or("none").chars().take(100).collect();
        let message = format!("Unsupported content type: '{found}'. Supported are: {}.", listed(expected));
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, Some("unsupported_content_type"), message)
    }

    /// 429: try again later.
    pub fn busy(wait: Duration, message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("rate_limit_exceeded"), message)
            .after(wait)
    }

    /// 503: the models are being loaded.
    pub fn loading() -> Self {
        let message = "The models are still being loaded; `/readyz` tells when they are.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("model_loading"), message)
            .after(Duration::from_secs(2))
    }

    /// 503: the server is about to end.
    pub fn draining() -> Self {
        let message = "The server is shutting down and takes no new requests.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("server_shutting_down"), message)
            .after(Duration::from_secs(5))
    }

    /// 500: a fault of this side. `repeatable`: a second try would end the same way.
    pub fn internal(message: impl Into<String>, repeatable: bool) -> Self {
        let error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, Some("server_error"), message);
        ApiError { should_retry: repeatable.then_some(false), ..error }
    }

    /// The body.
    pub fn to_body(&self) -> ErrorBody {
        ErrorBody { error: self.detail.clone() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.to_body())).into_response();
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(retry) = self.should_retry {
            let value = HeaderValue::from_static(if retry { "true" } else { "false" });
            headers.insert("x-should-retry", value);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// `'a', 'b', and 'c'`.
fn listed(words: &[&str]) -> String {
    match words {
        [] => "none".to_owned(),
        [one] => format!("'{one}'"),
        [a, b] => format!("'{a}' and '{b}'"),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(|word| format!("'{word}'")).collect();
            format!("{}, and '{last}'", most.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_listed_in_openais_words() {
        let said = ApiError::value("size", "1x1", &["64x64", "auto"]).to_body().error;
        assert_eq!(said.message, "Invalid value: '1x1'. Supported values are: '64x64' and 'auto'.");
        assert_eq!(listed(&["a", "b", "c"]), "'a', 'b', and 'c'");
        let said = ApiError::range("n", 11, 1, 10).to_body().error;
        assert!(said.message.ends_with("Expected a value <= 10, but got 11 instead."), "{}", said.message);
    }
}
