//! Liveness, readiness and figures.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::{App, Stage};
use crate::error::{ApiError, ErrorBody, Result};

/// Liveness.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthResponse {
    /// `ok`.
    pub status: &'static str,
}

/// Readiness.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadyResponse {
    /// `loading`, `ready` or `draining`.
    pub status: &'static str,
    /// Models that are served.
    pub models: Vec<String>,
}

/// Whether the process lives
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "server",
    responses((status = 200, description = "It lives", body = HealthResponse)),
)]
pub async fn health() -> Json<HealthResponse> {
    Json(HealthResponse { status: "ok" })
}

/// Whether all models are loaded
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "server",
    responses(
        (status = 200, description = "Requests are taken", body = ReadyResponse),
        (status = 503, description = "Loading or shutting down", body = ReadyResponse),
    ),
)]
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let (code, status) = match app.stage() {
        Stage::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        Stage::Ready => (StatusCode::OK, "ready"),
        Stage::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let models = app.models.all().iter().map(|served| served.id.clone()).collect();
    let mut response = (code, Json(ReadyResponse { status, models })).into_response();
    if code != StatusCode::OK {
        let wait = Duration::from_secs(2).as_secs();
        response.headers_mut().insert(header::RETRY_AFTER, wait.into());
    }
    response
}

/// Figures for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    responses(
        (status = 200, description = "Prometheus's text format", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
    ),
    security((), ("key" = [])),
)]
pub async fn metrics(State(app): State<Arc<App>>) -> Result<Response> {
    let text = app.metrics.text().map_err(|error| ApiError::internal(error.to_string(), false))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
