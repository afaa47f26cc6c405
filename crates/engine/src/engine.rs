//! The handle of an engine, and its threads.

use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use ar_model::AutoregressiveModel as _;
use base::{Codes, ImagesU8, Progress};
use generate::{Networks, Picture, PromptEncoder};
use settings::SamplingSettings;
use tch::{Device, Tensor};

use crate::accept::Rules;
use crate::api::{EngineConfig, Event, ImageRequest, ModelInfo, Refused, Request, Status, Subject};
use crate::error::{EngineError, Result};
use crate::finish::{self, Task};
use crate::job::{Job, Ready, previews};
use crate::shared::{Phase, Shared, guarded};
use crate::submission::{Reply, Submission};
use crate::{memory, prompts, worker};

/// A handle of an engine. The engine ends, and its threads with it, when the last one is dropped,
/// which waits for the pass under way; images that are not done by then fail with
/// [`EngineError::Stopped`].
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    info: ModelInfo,
    rules: Rules,
    device: Device,
    shared: Arc<Shared>,
    /// Work for the tokenizer; `None` once the engine ends.
    tasks: Mutex<Option<Sender<Task>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Engine {
    /// Loads the models, makes one image, and returns.
    ///
    /// # Errors
    /// Returns an error if the models or the text encoder cannot be loaded, a thread cannot be
    /// started, or the image cannot be made.
    pub fn start(config: EngineConfig, progress: &mut dyn Progress) -> Result<Engine> {
        let EngineConfig { models, encoder, slots, queue } = config;
        let encoder = match models.pair.takes_prompts()? {
            true => Some(PromptEncoder::open(encoder.as_deref(), &models)?),
            false => None,
        };
        if let Some(encoder) = &encoder {
            progress.message(&format!("text encoder: `{}`", encoder.weights().display()));
        }
        let networks = Networks::load(models, progress)?;
        let engine = Engine::with(networks, encoder, slots, queue)?;
        let slots = engine.info().slots;
        progress.message(&format!("{slots} images share a step, {queue} may wait"));
        engine.warm_up()?;
        Ok(engine)
    }

    fn with(
        networks: Networks,
        encoder: Option<PromptEncoder>,
        slots: Option<usize>,
        queue: usize,
    ) -> Result<Engine> {
        let Networks { transformer, tokenizer, classes, identity } = networks;
        let device = identity.config.device;
        let slots = slots.map_or_else(|| memory::slots(&transformer, device), |slots| slots.max(1));
        let conditioning = transformer.config().conditioning;
        let text_encoder = encoder.as_ref().map(PromptEncoder::id);
        let rules = Rules::new(&identity, classes.clone(), conditioning, text_encoder)?;
        let spec = transformer.spec();
        let info = ModelInfo {
            id: identity.transformer.name.clone(),
            side: identity.side,
            num_tokens: spec.num_tokens,
            codebook_size: spec.vocab_size,
            classes,
            defaults: rules.complete_defaults().clone(),
            slots,
            transformer: identity.transformer,
            tokenizer: identity.tokenizer,
            device: base::device::name(device),
            precision: identity.config.precision,
        };
        let shared = Arc::new(Shared::new(slots, queue, spec.num_tokens, device));
        let (tasks, receiver) = channel();
        let inner = Inner {
            info,
            rules,
            device,
            shared: Arc::clone(&shared),
            tasks: Mutex::new(Some(tasks.clone())),
            threads: Mutex::new(vec![]),
        };
        let engine = Engine { inner: Arc::new(inner) }; // ends the threads that start, if one does not
        let threads = tch::get_num_threads();
        let state = Arc::clone(&shared);
        engine
            .spawn("pictures", move || finish::run(&tokenizer.model, device, &state, &receiver, threads))?;
        if let Some(encoder) = encoder {
            let state = Arc::clone(&shared);
            engine.spawn("prompts", move || prompts::run(&encoder, &state, threads))?;
        }
        engine.spawn("images", move || worker::run(&transformer, &shared, &tasks, threads))?;
        Ok(engine)
    }

    fn spawn(&self, name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let shared = Arc::clone(&self.inner.shared);
        let whole = move || {
            if let Err(message) = guarded(run) {
                shared.say(&format!("the thread `{name}` ended, and with it the engine: {message}"));
                shared.stop();
            }
        };
        let thread = Builder::new().name(name.to_owned()).spawn(whole);
        let thread = thread.map_err(|source| EngineError::Thread { name, source })?;
        self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Makes an image, which allocates the cache, and forgets it.
    fn warm_up(&self) -> Result<()> {
        let first = self.info().classes.as_ref().and_then(|table| table.classes().next());
        let subject =
            first.map_or_else(|| Subject::Prompt("a photo".into()), |class| Subject::Class(class.index));
        let image = ImageRequest {
            subject,
            negative_prompt: None,
            sampling: SamplingSettings::default(),
            seed: 0,
            index: 0,
            size: None,
        };
        let request = Request { images: vec![image], partial_images: 0, steps: false };
        let threads = tch::get_num_threads();
        let result = self.make(request);
        tch::set_num_threads(threads); // the last number set, which new threads begin with
        let mut state = self.inner.shared.state();
        let Status { slots, step_seconds, .. } = state.status;
        state.status = Status { slots, step_seconds, ..Status::default() };
        result
    }

    /// Makes the images of a request, on a thread of its own, since this one may be a runtime's.
    fn make(&self, request: Request) -> Result<()> {
        let failed = |message: String| EngineError::Failed { what: "the first image", message };
        let mut submission = self.submit(request).map_err(|refused| failed(refused.to_string()))?;
        let wait = move || {
            while let Some(event) = submission.blocking_next() {
                if let Event::Failed { error, .. } = event {
                    return Err(error);
                }
            }
            Ok(())
        };
        let name = "warm-up";
        let thread = Builder::new().name(name.to_owned()).spawn(wait);
        let thread = thread.map_err(|source| EngineError::Thread { name, source })?;
        thread.join().unwrap_or_else(|_| Err(failed("its thread panicked".into())))
    }

    /// The model.
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Sends lines worth a log to `log`: failed passes, and fewer slots after a lack of memory. It is
    /// called on the engine's threads.
    pub fn set_log(&self, log: impl Fn(&str) + Send + Sync + 'static) {
        self.inner.shared.set_log(Arc::new(log));
    }

    /// Queues the images of a request. Never blocks.
    ///
    /// # Errors
    /// Returns the reason why none of them is accepted.
    pub fn submit(&self, request: Request) -> Result<Submission, Refused> {
        let accepted = self.accept(&request);
        if accepted.is_err() {
            self.inner.shared.state().status.refused += 1;
        }
        accepted
    }

    fn accept(&self, request: &Request) -> Result<Submission, Refused> {
        let images = self.inner.rules.accept(request)?;
        let shared = &self.inner.shared;
        let previews = previews(request.partial_images, self.info().num_tokens);
        let (reply, submission) = Reply::channel();
        let submitted = Instant::now();
        shared.change(|state| {
            shared.check_room(state, images.len())?;
            reply.send(Event::Queued { ahead: state.queued() });
            for (image, accepted) in images.into_iter().enumerate() {
                let job = Job {
                    image,
                    reply: reply.clone(),
                    steps: request.steps,
                    previews: previews.clone(),
                    submitted,
                    accepted,
                };
                match job.accepted.subject {
                    Subject::Class(class) => {
                        state.waiting.push_back(Ready::of_class(job, class, self.inner.device));
                    }
                    Subject::Prompt(_) => state.texts.push_back(job),
                }
            }
            Ok(())
        })?;
        Ok(submission)
    }

    /// Figures of the engine.
    pub fn status(&self) -> Status {
        let state = self.inner.shared.state();
        Status { queued: state.queued(), ..state.status }
    }

    /// Codes (B, N) of images, by the tokenizer, between those of finished images. Blocks.
    ///
    /// # Errors
    /// Returns an error if the images have another size than the tokenizer's, it fails, or the engine
    /// is stopped.
    pub fn encode(&self, images: ImagesU8) -> Result<Codes> {
        let mut parts = vec![];
        for part in self.parts(images.tensor()) {
            let part = ImagesU8::new(part)?;
            parts.push(self.ask(|reply| Task::Encode(part, reply))?.into_tensor());
        }
        Ok(Codes::new(Tensor::cat(&parts, 0))?)
    }

    /// Pictures of codes (B, N), by the tokenizer, between those of finished images. Blocks.
    ///
    /// # Errors
    /// Returns an error if the codes are not the tokenizer's, it fails, or the engine is stopped.
    pub fn decode(&self, codes: Codes) -> Result<Vec<Picture>> {
        let mut pictures = vec![];
        for part in self.parts(codes.tensor()) {
            let part = Codes::new(part)?;
            pictures.append(&mut self.ask(|reply| Task::Decode(part, reply))?);
        }
        Ok(pictures)
    }

    /// Parts of a batch that go through the tokenizer at once.
    fn parts(&self, batch: &Tensor) -> Vec<Tensor> {
        batch.split(finish::at_once(self.inner.device) as i64, 0)
    }

    /// Has the tokenizer do a task, and waits for the result.
    fn ask<R>(&self, task: impl FnOnce(std::sync::mpsc::SyncSender<Result<R>>) -> Task) -> Result<R> {
        let (reply, result) = sync_channel(1);
        if self.inner.shared.state().phase == Phase::Stopped {
            return Err(EngineError::Stopped);
        }
        let tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tasks = tasks.ok_or(EngineError::Stopped)?;
        tasks.send(task(reply)).map_err(|_| EngineError::Stopped)?;
        result.recv().unwrap_or(Err(EngineError::Stopped))
    }

    /// Takes no more requests; images that run or wait are finished.
    pub fn drain(&self) {
        self.inner.shared.change(|state| {
            if state.phase == Phase::Open {
                state.phase = Phase::Draining;
            }
        });
    }

    /// Fails all images that are left with [`EngineError::Stopped`], those under way after their
    /// step.
    pub fn stop(&self) {
        self.inner.shared.stop();
    }

    /// Whether no image runs or waits.
    pub fn idle(&self) -> bool {
        self.inner.shared.state().is_idle()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop();
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = None;
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}
