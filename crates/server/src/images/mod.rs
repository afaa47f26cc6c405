//! POST `/v1/images/generations`.

mod answer;
mod encode;
mod fault;
mod plan;
mod request;
mod stream;
mod whole;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

pub use answer::{CompletedEvent, ImagesResponse, PartialImageEvent, QueuedEvent, StartedEvent, StepEvent};
pub use encode::{Format, base64_of};
pub use request::CreateImageRequest;

use crate::app::App;
use crate::body;
use crate::error::{ErrorBody, Result};
use crate::facts::Facts;
use fault::refused;
use plan::Plan;

/// Most bytes of a body: two texts of the greatest length, every character escaped, and the rest.
const MOST_BYTES: usize = 1 << 20;

/// Generate images
///
/// OpenAI's request with the sampler's settings beside it. Unknown fields and values that cannot be
/// honoured are refused. With `stream: true` the answer is a stream of server-sent events:
/// `image_generation.partial_image`, `image_generation.completed` (one an image), `error`, and with
/// `progress: true` also `gen.queued`, `gen.started` and `gen.step`.
#[utoipa::path(
    post,
    path = "/v1/images/generations",
    tag = "images",
    request_body = CreateImageRequest,
    responses(
        (status = 200, description = "The images, or a stream of events", content(
            (ImagesResponse = "application/json"),
            (PartialImageEvent = "text/event-stream"),
        )),
        (status = 400, description = "A field that cannot be honoured", body = ErrorBody),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is no JSON", body = ErrorBody),
        (status = 429, description = "The queue is full; see `Retry-After`", body = ErrorBody),
        (status = 500, description = "The images could not be made", body = ErrorBody),
        (status = 503, description = "Loading or shutting down", body = ErrorBody),
    ),
    security((), ("key" = [])),
)]
pub async fn generate_images(State(app): State<Arc<App>>, request: Request) -> Result<Response> {
    let request: CreateImageRequest = body::json(request, MOST_BYTES, &app.config).await?;
    let served = app.model(request.model.as_deref())?;
    let plan = Plan::of(&request, served)?;
    let facts = Facts {
        model: plan.served.id.clone(),
        images: plan.images.len(),
        prompt: if app.config.log_prompts { request.prompt } else { None },
    };
    let mut response = answer_plan(app, plan).await?;
    response.extensions_mut().insert(facts);
    Ok(response)
}

async fn answer_plan(app: Arc<App>, plan: Plan) -> Result<Response> {
    let request = engine::Request {
        images: plan.images.clone(),
        partial_images: plan.partial_images,
        steps: plan.progress,
    };
    let submission = plan.served.engine.submit(request).map_err(refused)?;
    match plan.stream {
        true => Ok(stream::response(app, plan, submission)),
        false => Ok(axum::Json(whole::response(&app, plan, submission).await?).into_response()),
    }
}
