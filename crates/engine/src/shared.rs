//! What the threads of an engine share: the queue, the phase and the figures.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libtorch_ext::failure::{libtorch_message, panic_text};
use tch::Device;

use crate::api::{Refused, Status};
use crate::error::EngineError;
use crate::job::{Job, Ready};
use crate::turns::{Turn, Turns};

/// Receiver of lines worth a log.
pub(crate) type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// Course of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Takes requests.
    Open,
    /// Takes no more requests, and finishes those it has.
    Draining,
    /// Makes no more images.
    Stopped,
}

/// Queue, phase and figures.
pub(crate) struct State {
    pub phase: Phase,
    /// Images of prompts that are not encoded.
    pub texts: VecDeque<Job>,
    /// Images whose prompt is being encoded.
    pub encoding: usize,
    /// Images that wait for a slot.
    pub waiting: VecDeque<Ready>,
    /// Images whose codes wait for the tokenizer.
    pub decoding: usize,
    /// Figures; `queued` is counted from the queues.
    pub status: Status,
    /// Failures to come, of the next passes.
    #[cfg(test)]
    pub faults: VecDeque<&'static str>,
    /// Whether passes wait.
    #[cfg(test)]
    pub held: bool,
}

impl State {
    /// Images that wait.
    pub fn queued(&self) -> usize {
        self.texts.len() + self.encoding + self.waiting.len()
    }

    /// Queues an image whose prompt is encoded; gives it back where the engine is stopped.
    pub fn encoded(&mut self, ready: Ready) -> Option<Ready> {
        self.encoding -= 1;
        if self.phase == Phase::Stopped {
            return Some(ready);
        }
        self.waiting.push_back(ready);
        None
    }

    /// Whether no image is left.
    pub fn is_idle(&self) -> bool {
        self.queued() + self.status.active + self.decoding == 0
    }

    /// Whether the tokenizer is so far behind that more codes would pile up.
    pub fn is_behind(&self) -> bool {
        self.decoding >= self.status.slots + 8
    }
}

/// State of an engine, and the signals of its changes.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Images that may wait.
    limit: usize,
    /// Codes of an image.
    num_tokens: i64,
    /// Signals work for the transformer.
    images: Condvar,
    /// Signals work for the text encoder.
    prompts: Condvar,
    log: Mutex<Option<Log>>,
    /// Turns of the transformer and the tokenizer, on the CPU.
    turns: Option<Turns>,
}

impl Shared {
    pub fn new(slots: usize, limit: usize, num_tokens: i64, device: Device) -> Self {
        let state = State {
            phase: Phase::Open,
            texts: VecDeque::new(),
            encoding: 0,
            waiting: VecDeque::new(),
            decoding: 0,
            status: Status { slots, ..Status::default() },
            #[cfg(test)]
            faults: VecDeque::new(),
            #[cfg(test)]
            held: false,
        };
        Shared {
            state: Mutex::new(state),
            limit,
            num_tokens,
            images: Condvar::new(),
            prompts: Condvar::new(),
            log: Mutex::new(None),
            turns: (device == Device::Cpu).then(Turns::default),
        }
    }

    /// Waits for the processor, where its work takes turns.
    pub fn turn(&self) -> Option<Turn<'_>> {
        self.turns.as_ref().map(Turns::take)
    }

    /// The state, locked.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes the threads.
    pub fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state());
        self.images.notify_all();
        self.prompts.notify_all();
        result
    }

    /// Returns a refusal if the queue has no room for `count` images.
    pub fn check_room(&self, state: &State, count: usize) -> Result<(), Refused> {
        let (limit, queued) = (self.limit, state.queued());
        if state.phase != Phase::Open {
            return Err(Refused::Draining);
        }
        if count > limit {
            return Err(Refused::TooMany { images: count, limit });
        }
        if queued + count > limit {
            return Err(Refused::Full { queued, limit, retry_after: self.time_of(state, queued) });
        }
        Ok(())
    }

    /// Estimate of the time that so many waiting images take.
    fn time_of(&self, state: &State, images: usize) -> Duration {
        let Status { step_seconds, slots, .. } = state.status;
        let steps = images as f64 * self.num_tokens as f64 / slots.max(1) as f64;
        Duration::try_from_secs_f64(step_seconds * steps).unwrap_or_default()
    }

    /// Waits for work of the transformer. Returns up to `most` images for free slots, none where only
    /// those that are under way go on; `None` once the engine is stopped.
    pub fn next_images(&self, running: usize, most: usize) -> Option<Vec<Ready>> {
        let mut state = self.state();
        loop {
            if state.phase == Phase::Stopped {
                return None;
            }
            let before = state.waiting.len();
            state.waiting.retain(|ready| !ready.job.reply.is_cancelled());
            state.status.cancelled += (before - state.waiting.len()) as u64;
            let ready = !state.waiting.is_empty() && !state.is_behind();
            if ready || running > 0 {
                let count = if ready { most.min(state.waiting.len()) } else { 0 };
                state.status.active = running + count;
                return Some(state.waiting.drain(..count).collect());
            }
            state.status.active = 0;
            state = self.images.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for a prompt; `None` once the engine is stopped.
    pub fn next_prompt(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.phase == Phase::Stopped {
                return None;
            }
            if let Some(job) = state.texts.pop_front() {
                state.encoding += 1;
                return Some(job);
            }
            state = self.prompts.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the engine: no image is begun any more, and those that wait fail.
    pub fn stop(&self) {
        let left: Vec<Job> = self.change(|state| {
            state.phase = Phase::Stopped;
            let texts = std::mem::take(&mut state.texts);
            let waiting = std::mem::take(&mut state.waiting).into_iter().map(|ready| ready.job);
            waiting.chain(texts).collect()
        });
        left.iter().for_each(|job| self.fail(job, EngineError::Stopped));
    }

    /// Fails an image, and counts it.
    pub fn fail(&self, job: &Job, error: EngineError) {
        self.state().status.failed += 1;
        job.fail(error);
    }

    /// Sets the receiver of lines worth a log.
    pub fn set_log(&self, log: Log) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    }

    /// Says something worth a log.
    pub fn say(&self, line: &str) {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(log) = log {
            log(line);
        }
    }

    /// Holds the next pass up, or fails it, if a test asks for it.
    #[cfg(test)]
    pub fn inject(&self) {
        let mut state = self.state();
        while state.held {
            state = self.images.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let fault = state.faults.pop_front();
        drop(state);
        if let Some(message) = fault {
            panic!("{message}");
        }
    }
}

/// Calls `f`; the message of its panic, libtorch's own if that is the cause.
pub(crate) fn guarded<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let text = panic_text(payload.as_ref());
        libtorch_message(&text).unwrap_or(text)
    })
}

/// Sets the number of threads of libtorch's operations on this thread alone. Its first operation
/// would take over the last number set anywhere.
pub(crate) fn use_threads(number: i32) {
    let _ = tch::get_num_threads();
    tch::set_num_threads(number);
}
