//! Stand-in for the engine: the agreed interface, images one after the other.
#![allow(clippy::all, clippy::pedantic)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base::{Codes, ImagesU8, Progress};
use data::ClassTable;
use generate::{
    Condition, DrawConfig, Generator, ModelId, ModelsConfig, Picture, Prompt, Provenance, TextConfig,
};
use sampler::{DecodeMode, SamplingConfig};
use settings::{Rng, SamplingSettings};
use tokenizer::Tokenizer as _;
use tokio::sync::mpsc;

/// A result of this crate.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Stopped before the image was done.
    #[error("the engine was stopped")]
    Stopped,
    /// An error of the models.
    #[error(transparent)]
    Generate(#[from] generate::Error),
}

impl base::Hint for EngineError {
    fn hints(&self) -> Vec<String> {
        match self {
            EngineError::Stopped => vec![],
            EngineError::Generate(e) => e.hints(),
        }
    }
}

/// Configuration.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Models.
    pub models: ModelsConfig,
    /// Folder of the text encoder.
    pub encoder: Option<PathBuf>,
    /// Slots.
    pub slots: Option<usize>,
    /// Images that may wait.
    pub queue: usize,
}

/// Facts of a model.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ModelInfo {
    pub id: String,
    pub side: i64,
    pub num_tokens: i64,
    pub codebook_size: i64,
    pub classes: Option<ClassTable>,
    pub defaults: SamplingSettings,
    pub slots: usize,
    pub transformer: ModelId,
    pub tokenizer: ModelId,
    pub device: String,
    pub precision: base::Precision,
}

/// Subject of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Subject {
    Class(i64),
    Prompt(String),
}

/// An image.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ImageRequest {
    pub subject: Subject,
    pub negative_prompt: Option<String>,
    pub sampling: SamplingSettings,
    pub seed: u64,
    pub index: u64,
    pub size: Option<i64>,
}

/// Images.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Request {
    pub images: Vec<ImageRequest>,
    pub partial_images: u32,
    pub steps: bool,
}

/// Events.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Event {
    Queued {
        ahead: usize,
    },
    Started {
        image: usize,
    },
    Step {
        image: usize,
        step: i64,
        of: i64,
    },
    Partial {
        image: usize,
        number: u32,
        picture: Picture,
    },
    Done {
        image: usize,
        picture: Picture,
        provenance: Provenance,
        codes: Vec<i64>,
        text_tokens: u64,
        timing: Timing,
    },
    Failed {
        image: usize,
        error: EngineError,
    },
}

/// Times.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Timing {
    pub queued: Duration,
    pub sampling: Duration,
    pub decoding: Duration,
}

/// Refusals.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Refused {
    Full { queued: usize, limit: usize, retry_after: Duration },
    Draining,
    Invalid { param: &'static str, message: String },
    TooMany { images: usize, limit: usize },
}

/// State.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Status {
    pub queued: usize,
    pub active: usize,
    pub slots: usize,
    pub steps: u64,
    pub images: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub refused: u64,
    pub step_seconds: f64,
    pub rows_stepped: u64,
}

enum Job {
    Images { request: Request, events: mpsc::UnboundedSender<Event>, cancelled: Arc<AtomicBool>, at: Instant },
    Encode { images: ImagesU8, to: std_mpsc::Sender<Result<Codes>> },
    Decode { codes: Codes, to: std_mpsc::Sender<Result<Vec<Picture>>> },
}

#[derive(Default)]
struct Shared {
    queued: AtomicUsize,
    active: AtomicUsize,
    images: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    refused: AtomicU64,
    steps: AtomicU64,
    draining: AtomicBool,
    stopped: AtomicBool,
}

/// A handle.
#[derive(Clone)]
pub struct Engine {
    info: Arc<ModelInfo>,
    shared: Arc<Shared>,
    jobs: Arc<Mutex<std_mpsc::Sender<Job>>>,
    queue: usize,
}

/// Events of a request.
pub struct Submission {
    events: mpsc::UnboundedReceiver<Event>,
    cancelled: Arc<AtomicBool>,
}

impl Submission {
    /// The next event.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }

    /// The next event.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }
}

impl Engine {
    /// Starts.
    ///
    /// # Errors
    /// Returns an error if the models cannot be loaded.
    #[allow(clippy::unwrap_used)]
    pub fn start(config: EngineConfig, progress: &mut dyn Progress) -> Result<Engine> {
        let worker = Worker::load(config.clone(), progress)?;
        let info = Arc::new(worker.info(&config)?);
        let (to, jobs) = std_mpsc::channel();
        let shared = Arc::new(Shared::default());
        let of_worker = Arc::clone(&shared);
        std::thread::spawn(move || {
            for job in jobs {
                worker.work(job, &of_worker);
            }
        });
        Ok(Engine { info, shared, jobs: Arc::new(Mutex::new(to)), queue: config.queue })
    }

    /// Facts.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Sends lines worth a log.
    pub fn set_log(&self, _log: impl Fn(&str) + Send + Sync + 'static) {}

    /// Submits.
    ///
    /// # Errors
    /// Returns an error if refused.
    pub fn submit(&self, request: Request) -> Result<Submission, Refused> {
        let n = request.images.len();
        if self.shared.draining.load(Ordering::SeqCst) {
            return Err(Refused::Draining);
        }
        if n > self.queue {
            return Err(Refused::TooMany { images: n, limit: self.queue });
        }
        for image in &request.images {
            let settings = image.sampling.clone().or(self.info.defaults.clone());
            if settings.temperature.is_some_and(|t| t < 0.0) {
                let message = "temperature: expected 0 or more".into();
                return Err(Refused::Invalid { param: "temperature", message });
            }
            if let Err(e) = SamplingConfig::from_settings(settings) {
                return Err(Refused::Invalid { param: "cfg_schedule", message: e.to_string() });
            }
        }
        let ahead = self.shared.queued.load(Ordering::SeqCst);
        if ahead + n > self.queue {
            self.shared.refused.fetch_add(n as u64, Ordering::SeqCst);
            let retry_after = Duration::from_secs(1);
            return Err(Refused::Full { queued: ahead, limit: self.queue, retry_after });
        }
        self.shared.queued.fetch_add(n, Ordering::SeqCst);
        let (events, receiver) = mpsc::unbounded_channel();
        let _ = events.send(Event::Queued { ahead: ahead + self.shared.active.load(Ordering::SeqCst) });
        let cancelled = Arc::new(AtomicBool::new(false));
        self.send(Job::Images { request, events, cancelled: Arc::clone(&cancelled), at: Instant::now() });
        Ok(Submission { events: receiver, cancelled })
    }

    fn send(&self, job: Job) {
        let jobs = self.jobs.lock().unwrap_or_else(|p| p.into_inner());
        let _ = jobs.send(job);
    }

    /// State.
    pub fn status(&self) -> Status {
        let s = &self.shared;
        Status {
            queued: s.queued.load(Ordering::SeqCst),
            active: s.active.load(Ordering::SeqCst),
            slots: 1,
            steps: s.steps.load(Ordering::SeqCst),
            images: s.images.load(Ordering::SeqCst),
            failed: s.failed.load(Ordering::SeqCst),
            cancelled: s.cancelled.load(Ordering::SeqCst),
            refused: s.refused.load(Ordering::SeqCst),
            step_seconds: 0.001,
            rows_stepped: 2 * s.steps.load(Ordering::SeqCst),
        }
    }

    /// Encodes.
    ///
    /// # Errors
    /// Returns an error if the tokenizer fails.
    pub fn encode(&self, images: ImagesU8) -> Result<Codes> {
        let (to, from) = std_mpsc::channel();
        self.send(Job::Encode { images, to });
        from.recv().unwrap_or(Err(EngineError::Stopped))
    }

    /// Decodes.
    ///
    /// # Errors
    /// Returns an error if the tokenizer fails.
    pub fn decode(&self, codes: Codes) -> Result<Vec<Picture>> {
        let (to, from) = std_mpsc::channel();
        self.send(Job::Decode { codes, to });
        from.recv().unwrap_or(Err(EngineError::Stopped))
    }

    /// No new requests.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::SeqCst);
    }

    /// Fails what is left.
    pub fn stop(&self) {
        self.drain();
        self.shared.stopped.store(true, Ordering::SeqCst);
    }

    /// Nothing to do.
    pub fn idle(&self) -> bool {
        let s = &self.shared;
        s.queued.load(Ordering::SeqCst) + s.active.load(Ordering::SeqCst) == 0
    }
}

struct Worker {
    config: EngineConfig,
    generator: Option<Generator>,
    tokenizer: tokenizer::Loaded,
}

impl Worker {
    fn load(config: EngineConfig, progress: &mut dyn Progress) -> Result<Self> {
        let models = config.models.clone();
        let tokenizer =
            models.pair.tokenizer.open_tokenizer(models.device, models.tokenizer_precision, progress)?;
        let generator = match models.pair.takes_prompts()? {
            true => None,
            false => Some(Generator::load(models, progress)?),
        };
        Ok(Worker { config, generator, tokenizer })
    }

    fn with_text(&self, text: &str, negative: Option<String>) -> Result<Generator> {
        let text = TextConfig {
            prompts: Prompt::all([text.to_owned()]),
            negative,
            encoder: self.config.encoder.clone(),
        };
        let models = ModelsConfig { text: Some(text), ..self.config.models.clone() };
        Ok(Generator::load(models, &mut base::progress::Silent)?)
    }

    fn info(&self, config: &EngineConfig) -> Result<ModelInfo> {
        let own;
        let generator = match &self.generator {
            Some(generator) => generator,
            None => {
                own = self.with_text("warm-up", None)?;
                &own
            }
        };
        let draw = draw(SamplingConfig::default(), 0, None);
        let run = generator.run(&draw)?;
        let settings = run.settings();
        let spec = self.tokenizer.model.spec();
        let published = SamplingSettings::published();
        Ok(ModelInfo {
            id: settings.model.name.clone(),
            side: settings.size,
            num_tokens: spec.num_tokens,
            codebook_size: spec.codebook_size,
            classes: generator.classes().cloned(),
            defaults: config.models.pair.sampling_defaults()?.or(published),
            slots: config.slots.unwrap_or(1),
            transformer: settings.model.clone(),
            tokenizer: settings.tokenizer.clone(),
            device: settings.device.clone(),
            precision: settings.precision,
        })
    }

    fn work(&self, job: Job, shared: &Shared) {
        match job {
            Job::Images { request, events, cancelled, at } => {
                for (i, image) in request.images.iter().enumerate() {
                    shared.queued.fetch_sub(1, Ordering::SeqCst);
                    if cancelled.load(Ordering::SeqCst) {
                        shared.cancelled.fetch_add(1, Ordering::SeqCst);
                        continue;
                    }
                    shared.active.fetch_add(1, Ordering::SeqCst);
                    let _ = events.send(Event::Started { image: i });
                    let drawn = match shared.stopped.load(Ordering::SeqCst) {
                        true => Err(EngineError::Stopped),
                        false => self.draw(i, image, &request, &events, at),
                    };
                    let counter = if drawn.is_ok() { &shared.images } else { &shared.failed };
                    counter.fetch_add(1, Ordering::SeqCst);
                    shared.steps.fetch_add(self.tokenizer.model.spec().num_tokens as u64, Ordering::SeqCst);
                    shared.active.fetch_sub(1, Ordering::SeqCst);
                    let _ = events.send(drawn.unwrap_or_else(|error| Event::Failed { image: i, error }));
                }
            }
            Job::Encode { images, to } => {
                let codes = self.tokenizer.model.encode(&images.to_float()).map_err(generate::Error::from);
                let _ = to.send(codes.map_err(EngineError::from));
            }
            Job::Decode { codes, to } => {
                let images = self.tokenizer.model.decode(&codes).map_err(generate::Error::from);
                let pictures = images.and_then(|images| Picture::from_batch(&images.to_u8()));
                let _ = to.send(pictures.map_err(EngineError::from));
            }
        }
    }

    fn draw(
        &self,
        i: usize,
        image: &ImageRequest,
        request: &Request,
        events: &mpsc::UnboundedSender<Event>,
        at: Instant,
    ) -> Result<Event> {
        let queued = at.elapsed();
        let started = Instant::now();
        let own;
        let (generator, condition) = match (&image.subject, &self.generator) {
            (Subject::Class(index), Some(generator)) => {
                let table = generator.classes().ok_or(generate::Error::NeedsPrompts)?;
                let class = table.resolve(&index.to_string()).map_err(generate::Error::from)?;
                (generator, Condition::Class(class.clone()))
            }
            (Subject::Prompt(text), _) => {
                own = self.with_text(text, image.negative_prompt.clone())?;
                (&own, Condition::Prompt(Prompt { text: text.clone(), place: 0 }))
            }
            _ => return Err(generate::Error::NeedsPrompts.into()),
        };
        let settings = image.sampling.clone().or(self.config.models.pair.sampling_defaults()?);
        let sampling = SamplingConfig::from_settings(settings).map_err(generate::Error::from)?;
        let mut run = generator.run(&draw(sampling, image.seed, image.size))?;
        let images = run.images(&[image.index], &[&condition])?;
        let picture = Picture::from_batch(&images)?.remove(0);
        let n = self.tokenizer.model.spec().num_tokens;
        for step in (1..=n).filter(|_| request.steps) {
            let _ = events.send(Event::Step { image: i, step, of: n });
        }
        for number in 0..request.partial_images {
            let rgb = picture.rgb.iter().map(|&x| x / 8 * 2 * (number as u8 + 1)).collect();
            let dim = Picture { rgb, ..picture.clone() };
            let _ = events.send(Event::Partial { image: i, number, picture: dim });
        }
        let run = run.settings().clone();
        let provenance = Provenance { run, index: image.index, condition: condition.name() };
        let timing = Timing { queued, sampling: started.elapsed(), decoding: Duration::ZERO };
        let text_tokens = match &image.subject {
            Subject::Prompt(text) => text.split_whitespace().count() as u64,
            Subject::Class(_) => 0,
        };
        let codes = vec![0; n as usize];
        Ok(Event::Done { image: i, picture, provenance, codes, text_tokens, timing })
    }
}

fn draw(sampling: SamplingConfig, seed: u64, size: Option<i64>) -> DrawConfig {
    DrawConfig { sampling, rng: Rng::Image, seed, mode: DecodeMode::Stepwise, size }
}
