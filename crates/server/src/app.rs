//! State that all requests share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::config::ServerConfig;
use crate::error::{ApiError, Result};
use crate::metrics::Metrics;
use crate::models::{Models, Served};

/// Stage of the server's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Models are being loaded.
    Loading,
    /// All models are served.
    Ready,
    /// Running images finish, new ones are refused.
    Draining,
}

/// State that all requests share.
pub struct App {
    /// Choices of whoever runs the server.
    pub config: ServerConfig,
    /// The models.
    pub models: Arc<Models>,
    /// Figures for Prometheus.
    pub metrics: Metrics,
    stage: watch::Sender<Stage>,
    codes: Jobs,
}

impl App {
    /// A server without models yet.
    pub fn new(config: ServerConfig) -> Self {
        let models = Arc::new(Models::new(config.aliases.clone()));
        let metrics = Metrics::new(Arc::clone(&models));
        App { config, models, metrics, stage: watch::Sender::new(Stage::Loading), codes: Jobs::default() }
    }

    /// The stage.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Enters a stage; nothing follows [`Stage::Draining`].
    pub fn enter(&self, stage: Stage) {
        self.stage.send_if_modified(|now| {
            let enters = *now != Stage::Draining;
            if enters {
                *now = stage;
            }
            enters
        });
    }

    /// The model for a new piece of work.
    ///
    /// # Errors
    /// Returns an error while the models are loaded or the server ends, or if there is no such model.
    pub fn model(&self, name: Option<&str>) -> Result<Arc<Served>> {
        match (self.stage(), self.models.find(name)) {
            (Stage::Draining, _) => Err(ApiError::draining()),
            (_, Some(served)) => Ok(served),
            (Stage::Loading, None) => Err(ApiError::loading()),
            (Stage::Ready, None) => {
                Err(ApiError::model_not_found(name.unwrap_or("default"), &self.models.names()))
            }
        }
    }

    /// Admits a request of images or codes for the tokenizer alone.
    ///
    /// # Errors
    /// Returns an error if many are under way.
    pub fn admit_codes(&self) -> Result<Job<'_>> {
        let Ok(admitted) = self.codes.admitted.try_acquire() else {
            let message = format!("{} requests for codes are under way, the most at a time.", Jobs::ADMITTED);
            return Err(ApiError::busy(Duration::from_secs(1), message));
        };
        Ok(Job { jobs: &self.codes, _admitted: admitted })
    }
}

/// Bounds on requests for the tokenizer, whose images are large: a few are admitted and wait, fewer
/// run.
struct Jobs {
    admitted: Semaphore,
    running: Semaphore,
}

impl Jobs {
    const ADMITTED: usize = 16;
    const RUNNING: usize = 2;
}

impl Default for Jobs {
    fn default() -> Self {
        Jobs { admitted: Semaphore::new(Self::ADMITTED), running: Semaphore::new(Self::RUNNING) }
    }
}

/// An admitted request.
pub struct Job<'a> {
    jobs: &'a Jobs,
    _admitted: SemaphorePermit<'a>,
}

impl Job<'_> {
    /// Runs the work on a thread that may block, once it is its turn.
    ///
    /// # Errors
    /// Returns the work's error, or one of this side if it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _running = self.jobs.running.acquire().await;
        blocking(work).await
    }
}

/// Runs work on a thread that may block.
///
/// # Errors
/// Returns the work's error, or one of this side if it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|_| Err(ApiError::internal("The server failed at this request.", false)))
}
