//! Connections: accepted, bounded, and closed in order.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt as _;

use crate::app::{App, Stage};
use crate::log::Peer;

/// Time in which sent data must be acknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);
/// Pause after a connection could not be accepted, such as for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Between looks at whether all answers are complete.
const LOOK: Duration = Duration::from_millis(20);
/// Time for the last words to clients whose images are given up.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Serves until `stop` is done and running images are finished, or their time is over.
pub async fn serve(app: Arc<App>, router: Router, listener: TcpListener, stop: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(app.config.max_connections));
    let end = async {
        stop.await;
        drain(&app).await;
    };
    tokio::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        match accepted {
            Ok((stream, peer)) => accept(&app, &router, &places, &graceful, stream, peer),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(LAST_WORDS, graceful.shutdown()).await;
}

/// Refuses new requests, and waits until none is being answered; after the given time running
/// images are failed.
async fn drain(app: &App) {
    app.enter(Stage::Draining);
    let models = app.models.all();
    models.iter().for_each(|served| served.engine.drain());
    let answered = async {
        while app.metrics.in_flight.get() > 0 || !models.iter().all(|served| served.engine.idle()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::pin!(answered);
    if tokio::time::timeout(app.config.drain_time, &mut answered).await.is_err() {
        tracing::warn!("images are given up: they took longer than --drain-seconds");
        models.iter().for_each(|served| served.engine.stop());
        let _ = tokio::time::timeout(LAST_WORDS, answered).await;
    }
}

fn accept(
    app: &Arc<App>,
    router: &Router,
    places: &Arc<Semaphore>,
    graceful: &GracefulShutdown,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let _ = stream.set_nodelay(true);
    match Arc::clone(places).try_acquire_owned() {
        Ok(place) => {
            let connection = Connection { app: Arc::clone(app), router: router.clone(), peer, _place: place };
            tokio::spawn(connection.run(stream, graceful.watcher()));
        }
        Err(_) => {
            app.metrics.connections_refused.inc();
            tokio::spawn(refuse(stream));
        }
    }
}

struct Connection {
    app: Arc<App>,
    router: Router,
    peer: SocketAddr,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream, watcher: Watcher) {
        self.app.metrics.connections.inc();
        let limit = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, limit) {
            tracing::debug!(%error, "no time limit on unacknowledged data");
        }
        let peer = Peer(self.peer.ip());
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let router = self.router.clone();
            async move { Ok::<_, Infallible>(answer(router, request.map(Body::new)).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.app.config.read_time)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(served).await {
            tracing::debug!(%error, peer = %self.peer, "a connection ended");
        }
        self.app.metrics.connections.dec();
    }
}

async fn answer(router: Router, request: hyper::Request<Body>) -> hyper::Response<Body> {
    router.oneshot(request).await.unwrap_or_else(|never| match never {})
}

/// Tells a client that there are too many connections.
async fn refuse(mut stream: TcpStream) {
    const BODY: &str = r#"{"error":{"message":"Too many connections.","type":"server_error","param":null,"code":"server_is_overloaded"}}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    let said = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), said).await;
}
