//! Keys of clients.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::app::App;
use crate::error::{ApiError, Result};

/// Routes that anyone may use: health, the page and the description of the interface.
const OPEN: [&str; 4] = ["/", "/healthz", "/readyz", "/openapi.json"];

/// Lets requests with a right key pass, and those to open routes.
///
/// # Errors
/// Returns an error without a right key.
pub async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response> {
    if let Some(keys) = app.config.keys.as_ref().filter(|_| !OPEN.contains(&request.uri().path())) {
        let key = bearer(request.headers());
        if !key.is_some_and(|key| keys.allow(key)) {
            return Err(ApiError::unauthorized(key.is_some()));
        }
    }
    Ok(next.run(request).await)
}

/// The key of `Authorization: Bearer KEY`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
