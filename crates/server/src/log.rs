//! One line in the log a request, its id, and its figures.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tracing::Level;

use crate::app::App;
use crate::clock::fresh_number;
use crate::facts::Facts;

/// Header of the request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Address of the client, in a request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Writes requests to stderr, a line each; warnings and errors alone if `quiet`. Without effect if
/// the process has a log already.
pub fn log_to_stderr(json: bool, quiet: bool) {
    let level = if quiet { Level::WARN } else { Level::INFO };
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_target(false);
    let _ = match json {
        true => log.json().flatten_event(true).try_init(),
        false => log.try_init(),
    };
}

/// Gives the request an id, and writes its line when the answer is complete or the client left.
pub async fn request(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut line = Line::new(app, &request);
    let id = line.id.clone();
    let response = next.run(request).await;
    line.status = Some(response.status().as_u16());
    line.facts = response.extensions().get::<Facts>().cloned();
    let mut response = response.map(|body| Body::new(Logged { body, line }));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What is known of a request; the line is written when it is dropped.
struct Line {
    app: Arc<App>,
    id: String,
    method: String,
    path: String,
    route: Option<String>,
    peer: Option<IpAddr>,
    began: Instant,
    status: Option<u16>,
    facts: Option<Facts>,
    bytes: u64,
    complete: bool,
}

impl Line {
    fn new(app: Arc<App>, request: &Request) -> Self {
        app.metrics.in_flight.inc();
        Line {
            app,
            id: id_of(request.headers()),
            method: request.method().as_str().chars().take(20).collect(),
            path: request.uri().path().chars().take(200).collect(),
            route: request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()),
            peer: request.extensions().get::<Peer>().map(|peer| peer.0),
            began: Instant::now(),
            status: None,
            facts: None,
            bytes: 0,
            complete: false,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let time = self.began.elapsed();
        self.app.metrics.in_flight.dec();
        self.app.metrics.request(self.route.as_deref().unwrap_or("other"), self.status, time);
        let facts = self.facts.as_ref();
        tracing::info!(
            request_id = self.id,
            method = self.method,
            path = ?self.path,
            status = self.status,
            ms = time.as_millis() as u64,
            bytes = self.bytes,
            complete = self.complete,
            peer = self.peer.map(|peer| peer.to_string()),
            model = facts.map(|facts| facts.model.as_str()),
            images = facts.map(|facts| facts.images as u64),
            prompt = facts.and_then(|facts| facts.prompt.as_deref()).map(tracing::field::debug),
            "request"
        );
    }
}

/// The id that a proxy in front gave, if it is harmless, else a new one.
fn id_of(headers: &HeaderMap) -> String {
    const MOST: usize = 64;
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let plain = |id: &&str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        (1..=MOST).contains(&id.len()) && id.bytes().all(known)
    };
    given
        .filter(plain)
        .map_or_else(|| format!("req_{:016x}{:016x}", fresh_number(), fresh_number()), str::to_owned)
}

/// A body that counts its bytes and ends its request's line.
struct Logged {
    body: Body,
    line: Line,
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.line.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.line.complete = self.body.is_end_stream();
            }
            Poll::Ready(None) => self.line.complete = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_ids_are_kept() {
        let of = |id: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(id));
            id_of(&headers)
        };
        assert_eq!(of("abc-1.2_X"), "abc-1.2_X");
        for id in
            ["", "a b", "a\"b", "0123456789012345678901234567890123456789012345678901234567890123456789"]
        {
            assert!(of(id).starts_with("req_") && of(id).len() == 36, "{id}");
        }
        assert_ne!(id_of(&HeaderMap::new()), id_of(&HeaderMap::new()));
    }
}
