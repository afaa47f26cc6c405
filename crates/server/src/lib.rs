//! Images over HTTP: OpenAI's images interface, strictly, with the sampler's settings beside it; the
//! tokenizer as a service; and a page. Each model has an engine of its own, which this crate only
//! asks.
//!
//! A [`Server`] is made of a [`ServerConfig`], gets its models with [`Server::add`] while it is
//! running, and ends when running images are finished.

mod app;
mod auth;
mod body;
mod clock;
mod codes;
mod config;
mod error;
mod facts;
mod images;
mod keys;
mod listen;
mod log;
mod metrics;
mod models;
mod router;
mod routes;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use engine::Engine;
use tokio::net::TcpListener;

pub use config::ServerConfig;
pub use keys::{Keys, KeysError};
pub use log::log_to_stderr;
pub use models::{SameName, public_name};

use crate::app::{App, Stage};

/// A server. Clones are handles of the same one.
#[derive(Clone)]
pub struct Server {
    app: Arc<App>,
}

impl Server {
    /// A server without models: requests for images are answered with 503 until [`Server::ready`].
    pub fn new(config: ServerConfig) -> Self {
        Server { app: Arc::new(App::new(config)) }
    }

    /// Serves a model from now on. The first one is the default.
    ///
    /// # Errors
    /// Returns an error if another model has its name.
    pub fn add(&self, engine: Engine) -> Result<(), SameName> {
        self.app.models.add(engine).map(drop)
    }

    /// Tells that all models are there.
    pub fn ready(&self) {
        self.app.enter(Stage::Ready);
    }

    /// All routes, for tests and for servers of other programs.
    pub fn router(&self) -> Router {
        router::router(Arc::clone(&self.app))
    }

    /// Serves connections until `stop` is done and running images are finished, or
    /// [`ServerConfig::drain_time`] is over.
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()>) {
        listen::serve(Arc::clone(&self.app), self.router(), listener, stop).await;
    }
}
