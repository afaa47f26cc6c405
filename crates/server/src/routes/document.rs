//! The OpenAPI document.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use crate::error::ErrorBody;
use crate::images::{CompletedEvent, PartialImageEvent, QueuedEvent, StartedEvent, StepEvent};

/// What no route names: the head, and the events of streams.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "gen",
        description = "Images of autoregressive models by OpenAI's interface, and the models' tokenizers.",
    ),
    components(schemas(PartialImageEvent, CompletedEvent, QueuedEvent, StartedEvent, StepEvent, ErrorBody))
)]
struct Document;

/// The document, before the routes add theirs.
pub fn document() -> OpenApi {
    let mut document = Document::openapi();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("key", SecurityScheme::Http(bearer));
    document
}

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "server",
    responses((status = 200, description = "The document", body = Object)),
)]
pub async fn openapi(Extension(document): Extension<Arc<OpenApi>>) -> Response {
    Json(&*document).into_response()
}
