//! All routes, and what every request passes on its way to one.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::ApiError;
use crate::routes::{document, health, models, page};
use crate::{auth, codes, images, log};

/// The router of a server.
pub fn router(app: Arc<App>) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(document::document())
        .routes(routes!(page::page))
        .routes(routes!(images::generate_images))
        .routes(routes!(codes::encode::encode_images))
        .routes(routes!(codes::decode::decode_codes))
        .routes(routes!(models::list_models))
        .routes(routes!(models::get_model))
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(document::openapi))
        .split_for_parts();
    router
        .fallback(|request: Request| async move { ApiError::not_found(request.uri().path()) })
        .method_not_allowed_fallback(
            |method: Method| async move { ApiError::method_not_allowed(method.as_str()) },
        )
        .layer(Extension(Arc::new(document)))
        .layer(from_fn_with_state(Arc::clone(&app), auth::check))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(cors(&app.config.cors_origins))
        .layer(from_fn_with_state(Arc::clone(&app), log::request))
        .with_state(app)
}

/// Pages of the named origins may use the server; without any no header says a word.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    const RETRY: HeaderName = HeaderName::from_static("x-should-retry");
    match origins {
        [] => CorsLayer::new(),
        origins => CorsLayer::new()
            .allow_origin(origins.to_vec())
            .allow_methods([Method::GET, Method::POST])
            .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, log::REQUEST_ID])
            .expose_headers([log::REQUEST_ID, header::RETRY_AFTER, RETRY])
            .max_age(Duration::from_secs(600)),
    }
}

/// A panic is a bug of ours, and that request's error alone.
fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    tracing::error!(panic = text.as_deref().unwrap_or("no message"), "a request panicked");
    ApiError::internal("The server failed at this request.", false).into_response()
}
