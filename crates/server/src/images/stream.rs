//! The answer as a stream of server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use engine::{Event, Submission};
use generate::{Picture, Provenance};
use serde::Serialize;
use serde_json::json;

use super::answer::{CompletedEvent, PartialImageEvent, QueuedEvent, Shown, StartedEvent, StepEvent, Usage};
use super::fault::{failed, lost};
use super::plan::Plan;
use crate::app::App;
use crate::error::{ApiError, Result};

/// Between comment lines that keep proxies from closing a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events about an image's steps.
const STEP_EVENTS: i64 = 50;

/// A stream of a submission's events; when it is dropped, so is the submission, which cancels it.
pub fn response(app: Arc<App>, plan: Plan, submission: Submission) -> Response {
    let open = plan.images.len();
    let flow = Flow { app, plan, submission, open, began: Instant::now(), shown: false };
    let events = futures_util::stream::unfold(flow, |mut flow| async move {
        let event = flow.next().await?;
        Some((Ok::<_, Infallible>(event), flow))
    });
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"));
    ([("x-accel-buffering", "no")], sse).into_response()
}

struct Flow {
    app: Arc<App>,
    plan: Plan,
    submission: Submission,
    /// Images that are neither done nor failed.
    open: usize,
    began: Instant,
    /// Whether a picture was sent.
    shown: bool,
}

impl Flow {
    /// The next event for the client; `None` after the last image.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            let Some(event) = self.submission.next().await else {
                let left = std::mem::take(&mut self.open);
                return (left > 0).then(|| error_event(None, &lost()));
            };
            if let Some(event) = self.event(event).await {
                return Some(event);
            }
        }
    }

    async fn event(&mut self, event: Event) -> Option<sse::Event> {
        match event {
            Event::Queued { .. } | Event::Started { .. } | Event::Step { .. } if !self.plan.progress => None,
            Event::Queued { ahead } => {
                let eta_seconds = self.eta(ahead).as_secs_f64();
                Some(named("gen.queued", &QueuedEvent { r#type: "gen.queued", ahead, eta_seconds }))
            }
            Event::Started { image } => {
                Some(named("gen.started", &StartedEvent { r#type: "gen.started", image_index: image }))
            }
            Event::Step { image, step, of } => {
                let told = step * STEP_EVENTS / of > (step - 1) * STEP_EVENTS / of;
                let event = StepEvent { r#type: "gen.step", image_index: image, step, of };
                told.then(|| named("gen.step", &event))
            }
            Event::Partial { image, number, picture } => Some(self.partial(image, number, picture).await),
            Event::Done { image, picture, provenance, codes, text_tokens, timing } => {
                self.open -= 1;
                self.app.metrics.image(&self.plan.served.id, &timing);
                let usage = Usage::of(text_tokens, codes.len() as u64);
                Some(self.completed(image, picture, provenance, usage).await)
            }
            Event::Failed { image, error } => {
                self.open -= 1;
                Some(error_event(Some(image), &failed(&error, self.plan.seeded)))
            }
        }
    }

    /// Estimate of the time to the request's last image: rounds of all slots, a step for each code.
    fn eta(&self, ahead: usize) -> Duration {
        let engine = &self.plan.served.engine;
        let status = engine.status();
        let rounds = (ahead + self.plan.images.len()).div_ceil(status.slots.max(1));
        Duration::from_secs_f64(
            rounds as f64 * engine.info().num_tokens as f64 * status.step_seconds.max(0.0),
        )
    }

    async fn partial(&mut self, image: usize, number: u32, picture: Picture) -> sse::Event {
        let name = "image_generation.partial_image";
        let shown = Shown::of(&self.plan, image, picture, None).await;
        self.first_picture();
        event_or_error(image, name, shown, |shown| PartialImageEvent {
            r#type: name,
            partial_image_index: number,
            shown,
        })
    }

    async fn completed(
        &mut self,
        image: usize,
        picture: Picture,
        provenance: Provenance,
        usage: Usage,
    ) -> sse::Event {
        let name = "image_generation.completed";
        let (seed, index, began) = (provenance.run.seed, provenance.index, Instant::now());
        let shown = Shown::of(&self.plan, image, picture, Some(provenance)).await;
        self.app.metrics.phase(&self.plan.served.id, "encoding", began.elapsed());
        self.first_picture();
        event_or_error(image, name, shown, |shown| CompletedEvent { r#type: name, shown, seed, index, usage })
    }

    fn first_picture(&mut self) {
        if !self.shown {
            self.shown = true;
            self.app.metrics.phase(&self.plan.served.id, "first_picture", self.began.elapsed());
        }
    }
}

fn event_or_error<E: Serialize>(
    image: usize,
    name: &str,
    shown: Result<Shown>,
    event: impl FnOnce(Shown) -> E,
) -> sse::Event {
    match shown {
        Ok(shown) => named(name, &event(shown)),
        Err(error) => error_event(Some(image), &error),
    }
}

fn named(name: &str, data: &impl Serialize) -> sse::Event {
    let event = sse::Event::default().event(name).json_data(data);
    event.unwrap_or_else(|error| error_event(None, &ApiError::internal(error.to_string(), true)))
}

/// `event: error` whose data also has a top-level `error`, since some clients read only the one or
/// the other.
fn error_event(image: Option<usize>, error: &ApiError) -> sse::Event {
    let data = json!({"type": "error", "error": error.to_body().error, "image_index": image});
    sse::Event::default().event("error").data(data.to_string())
}
