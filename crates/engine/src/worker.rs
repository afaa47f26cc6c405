//! The thread that owns the transformer: every turn advances all images in slots by one code, and
//! admits waiting ones into free slots.
//!
//! A preview's guess is a pass of the same transformer, made between two steps: it takes about as
//! long as a step of as many rows as codes are left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use ar_model::{AutoregressiveModel as _, Decoder};
use libtorch_ext::failure::is_out_of_memory;
use sampler::{SlotNumber, Slots};

use crate::api::{Event, Timing};
use crate::error::EngineError;
use crate::finish::{Finished, Preview, Task};
use crate::job::Ready;
use crate::shared::{Shared, guarded, use_threads};

/// Positions that the prefills of one turn run at most, or one image's: images under way wait for
/// them.
const PREFILL_POSITIONS: usize = 512;

/// Works until the engine is stopped, then fails the images that are left. `threads` are those of
/// libtorch's operations.
pub(crate) fn run(model: &Decoder, shared: &Arc<Shared>, tasks: &Sender<Task>, threads: i32) {
    use_threads(if model.has_own_threads() { 1 } else { threads });
    let mut worker = Worker::new(model, shared, tasks);
    while let Some(ready) = shared.next_images(worker.running.len(), worker.room()) {
        worker.turn(ready);
    }
    let waiting = std::mem::take(&mut shared.state().waiting); // after a lack of memory
    let running = std::mem::take(&mut worker.running).into_values().map(|image| image.ready);
    running.chain(waiting).for_each(|ready| shared.fail(&ready.job, EngineError::Stopped));
    shared.state().status.active = 0;
}

/// An image in a slot.
struct Running {
    ready: Ready,
    admitted: Instant,
}

struct Worker<'a> {
    model: &'a Decoder,
    shared: &'a Shared,
    tasks: &'a Sender<Task>,
    /// `None` where their cache is to be made anew.
    slots: Option<Slots<'a, Decoder>>,
    running: BTreeMap<SlotNumber, Running>,
    /// Images on their way into slots.
    entering: Vec<Ready>,
}

/// Images of a turn that drew a code, and those that could not, by their slots.
type Drawn = Vec<(SlotNumber, sampler::Result<()>)>;

impl<'a> Worker<'a> {
    fn new(model: &'a Decoder, shared: &'a Shared, tasks: &'a Sender<Task>) -> Self {
        Worker { model, shared, tasks, slots: None, running: BTreeMap::new(), entering: vec![] }
    }

    /// Images that may enter in the next turn.
    fn room(&self) -> usize {
        let free = self.shared.state().status.slots.saturating_sub(self.running.len());
        let positions = 2 * self.model.spec().prefix_len.max(1) as usize;
        free.min((PREFILL_POSITIONS / positions).max(1))
    }

    fn turn(&mut self, ready: Vec<Ready>) {
        self.entering = ready;
        self.drop_cancelled();
        if self.running.is_empty() && self.entering.is_empty() {
            return;
        }
        let started = Instant::now();
        match guarded(|| self.advance()) {
            Ok(Ok((drawn, rows))) => {
                self.take(drawn);
                self.preview();
                self.count(started, rows);
                self.finish();
            }
            Ok(Err(error)) => self.recover(&error.to_string()),
            Err(message) => self.recover(&message),
        }
    }

    /// Empties the slots of images that nobody waits for.
    fn drop_cancelled(&mut self) {
        let cancelled = |image: &Running| image.ready.job.reply.is_cancelled();
        let gone: Vec<SlotNumber> =
            self.running.iter().filter(|(_, image)| cancelled(image)).map(|(slot, _)| *slot).collect();
        for slot in &gone {
            self.leave(*slot);
        }
        self.shared.state().status.cancelled += gone.len() as u64;
    }

    /// Takes an image out of its slot, with its codes so far.
    fn leave(&mut self, slot: SlotNumber) -> Option<(Running, Vec<i64>)> {
        let codes = self.slots.as_mut().map_or(vec![], |slots| slots.remove(slot));
        self.running.remove(&slot).map(|image| (image, codes))
    }

    /// Draws the next code of images in slots, and the first of those that enter. Returns the slots
    /// of both, and the number of rows that were run.
    fn advance(&mut self) -> sampler::Result<(Drawn, usize)> {
        let _turn = self.shared.turn();
        #[cfg(test)]
        self.shared.inject();
        let count = self.shared.state().status.slots;
        let slots = self.slots.get_or_insert_with(|| Slots::new(self.model, count));
        let mut drawn = slots.step();
        drawn.extend(slots.admit(self.entering.iter().map(Ready::image).collect())?);
        Ok((drawn, slots.rows()))
    }

    /// Registers the images that entered, and tells what was drawn.
    fn take(&mut self, drawn: Drawn) {
        let (stepped, now) = (self.running.len(), Instant::now());
        for ((slot, _), mut ready) in drawn.iter().skip(stepped).zip(std::mem::take(&mut self.entering)) {
            if !std::mem::replace(&mut ready.started, true) {
                ready.job.reply.send(Event::Started { image: ready.job.image });
            }
            self.running.insert(*slot, Running { ready, admitted: now });
        }
        for (slot, found) in drawn {
            match found {
                Ok(()) => self.tell_step(slot),
                Err(error) => {
                    if let Some((image, _)) = self.leave(slot) {
                        self.shared.fail(&image.ready.job, error.into());
                    }
                }
            }
        }
    }

    fn tell_step(&self, slot: SlotNumber) {
        let Some(job) = self.running.get(&slot).map(|image| &image.ready.job).filter(|job| job.steps) else {
            return;
        };
        let (step, of) = (self.known(slot) as i64, self.model.spec().num_tokens);
        job.reply.send(Event::Step { image: job.image, step, of });
    }

    /// Number of an image's codes so far.
    fn known(&self, slot: SlotNumber) -> usize {
        self.slots.as_ref().map_or(0, |slots| slots.codes(slot).len())
    }

    /// Guesses the rest of images whose previews are due. A guess that fails is left out.
    fn preview(&mut self) {
        let due: Vec<(SlotNumber, u32)> = self
            .running
            .iter()
            .filter_map(|(slot, image)| {
                let known = self.known(*slot);
                let number = image.ready.job.previews.iter().position(|&after| after == known)?;
                Some((*slot, number as u32))
            })
            .collect();
        for (slot, number) in due {
            let Some(slots) = &mut self.slots else { continue };
            let turn = self.shared.turn();
            let drafted = guarded(|| slots.draft(slot));
            drop(turn);
            match (drafted, self.running.get(&slot)) {
                (Ok(codes), Some(image)) => self.hand_over(Task::Preview(Preview {
                    reply: image.ready.job.reply.clone(),
                    image: image.ready.job.image,
                    number,
                    size: image.ready.job.accepted.provenance.run.size,
                    codes,
                })),
                (Err(message), _) => self.shared.say(&format!("a preview was left out: {message}")),
                (Ok(_), None) => {}
            }
        }
    }

    /// Hands images whose codes are complete to the tokenizer.
    fn finish(&mut self) {
        let n = self.model.spec().num_tokens as usize;
        let complete: Vec<SlotNumber> =
            self.running.keys().copied().filter(|&slot| self.known(slot) == n).collect();
        for slot in complete {
            let Some((Running { ready, admitted }, codes)) = self.leave(slot) else { continue };
            let now = Instant::now();
            let timing = Timing {
                queued: admitted - ready.job.submitted,
                sampling: now - admitted,
                ..Timing::default()
            };
            let Ready { job, text_tokens, .. } = ready;
            let mut state = self.shared.state();
            state.decoding += 1;
            state.status.active = self.running.len();
            drop(state);
            let finished = Finished { job, codes, text_tokens, timing, since: now };
            self.hand_over(Task::Finish(Box::new(finished)));
        }
    }

    /// Passes a task on. The tokenizer's thread outlives this one.
    fn hand_over(&self, task: Task) {
        let _ = self.tasks.send(task);
    }

    fn count(&self, started: Instant, rows: usize) {
        let (seconds, mut state) = (started.elapsed().as_secs_f64(), self.shared.state());
        let status = &mut state.status;
        let average = if status.steps == 0 { seconds } else { 0.9 * status.step_seconds + 0.1 * seconds };
        status.step_seconds = average;
        status.steps += 1;
        status.rows_stepped += rows as u64;
        status.active = self.running.len();
    }

    /// After a failed pass: fails its images, and makes the cache anew. Where memory ran out, halves
    /// the slots instead, and the images wait for another try, from their first code.
    fn recover(&mut self, message: &str) {
        self.slots = None; // frees the cache
        let images = std::mem::take(&mut self.running).into_values();
        let mut left: Vec<Ready> = images.map(|image| image.ready).collect();
        left.append(&mut self.entering);
        left.sort_by_key(|ready| ready.job.submitted);
        let mut state = self.shared.state();
        state.status.active = 0;
        if is_out_of_memory(message) && state.status.slots > 1 {
            state.status.slots /= 2;
            let slots = state.status.slots;
            left.into_iter().rev().for_each(|ready| state.waiting.push_front(ready));
            drop(state);
            self.shared.say(&format!("out of memory: {slots} images share a step from now on ({message})"));
            return;
        }
        let whole = is_out_of_memory(message);
        drop(state);
        self.shared.say(&format!("a step failed, and with it {} images: {message}", left.len()));
        for ready in left {
            let message = message.to_owned();
            let error = match whole {
                true => EngineError::OutOfMemory { message },
                false => EngineError::Failed { what: "a step of the transformer", message },
            };
            self.shared.fail(&ready.job, error);
        }
    }
}
