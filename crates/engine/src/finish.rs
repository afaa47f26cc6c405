//! The thread that owns the tokenizer: codes → pictures, and the tokenizer as a service.
//!
//! On the CPU images are decoded one by one, as the tokenizer does anyway; on a GPU several of those
//! that wait go together.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use base::{Codes, ImagesU8};
use generate::Picture;
use tch::{Device, Tensor};
use tokenizer::{Model, Tokenizer as _};

use crate::api::{Event, Timing};
use crate::error::{EngineError, Result};
use crate::job::Job;
use crate::shared::{Phase, Shared, guarded, use_threads};
use crate::submission::Reply;

/// Work for the tokenizer.
pub(crate) enum Task {
    /// An image whose codes are complete.
    Finish(Box<Finished>),
    /// A preview.
    Preview(Preview),
    /// Codes of one image or more.
    Encode(ImagesU8, SyncSender<Result<Codes>>),
    /// Pictures of codes.
    Decode(Codes, SyncSender<Result<Vec<Picture>>>),
}

/// An image whose codes are complete.
pub(crate) struct Finished {
    pub job: Job,
    pub codes: Vec<i64>,
    pub text_tokens: u64,
    /// Durations up to here.
    pub timing: Timing,
    /// Time of the last code.
    pub since: Instant,
}

/// Codes of a preview.
pub(crate) struct Preview {
    pub reply: Reply,
    pub image: usize,
    pub number: u32,
    /// Side in pixels.
    pub size: i64,
    pub codes: Vec<i64>,
}

/// Images that are decoded, or encoded, in one pass.
pub(crate) fn at_once(device: Device) -> usize {
    if device == Device::Cpu { 1 } else { 8 }
}

/// Works until all senders are gone.
pub(crate) fn run(model: &Model, device: Device, shared: &Arc<Shared>, tasks: &Receiver<Task>, threads: i32) {
    use_threads(threads);
    let most = at_once(device);
    let finisher = Finisher { model, device, shared };
    while let Ok(first) = tasks.recv() {
        let mut batch = vec![first];
        while batch.len() < most {
            let Ok(next) = tasks.try_recv() else { break };
            batch.push(next);
        }
        finisher.work(batch);
    }
}

struct Finisher<'a> {
    model: &'a Model,
    device: Device,
    shared: &'a Shared,
}

impl Finisher<'_> {
    fn work(&self, batch: Vec<Task>) {
        let mut drawn = vec![];
        for task in batch {
            match task {
                Task::Encode(images, reply) => drop(reply.send(self.encode(&images))),
                Task::Decode(codes, reply) => drop(reply.send(self.decode(&codes))),
                Task::Finish(finished) if self.leave_out(&finished) => {}
                Task::Preview(preview) if preview.reply.is_cancelled() => {}
                Task::Finish(_) | Task::Preview(_) => drawn.push(task),
            }
        }
        if drawn.len() > 1 {
            let rows: Vec<(&[i64], i64)> = drawn.iter().filter_map(codes_and_size).collect();
            if let Ok(pictures) = self.pictures(&rows) {
                drawn.into_iter().zip(pictures).for_each(|(task, picture)| self.tell(task, Ok(picture)));
                return;
            }
        }
        // Alone, so that an image that is not finite fails alone.
        for task in drawn {
            let rows: Vec<(&[i64], i64)> = codes_and_size(&task).into_iter().collect();
            let picture = self.pictures(&rows).map(|mut pictures| pictures.remove(0));
            self.tell(task, picture);
        }
    }

    /// Whether an image is not to be made any more, of which the status is told.
    fn leave_out(&self, finished: &Finished) -> bool {
        let cancelled = finished.job.reply.is_cancelled();
        let stopped = self.shared.state().phase == Phase::Stopped;
        if cancelled {
            self.shared.state().status.cancelled += 1;
        } else if stopped {
            self.shared.fail(&finished.job, EngineError::Stopped);
        }
        if cancelled || stopped {
            self.shared.change(|state| state.decoding -= 1);
        }
        cancelled || stopped
    }

    fn tell(&self, task: Task, picture: Result<Picture>) {
        match (task, picture) {
            (Task::Finish(finished), Ok(picture)) => {
                let Finished { job, codes, text_tokens, timing, since } = *finished;
                let timing = Timing { decoding: since.elapsed(), ..timing };
                self.shared.state().status.images += 1;
                job.reply.send(Event::Done {
                    image: job.image,
                    picture,
                    provenance: job.accepted.provenance.clone(),
                    codes,
                    text_tokens,
                    timing,
                });
                drop(job); // before the engine is idle, so that its request is over by then
                self.shared.change(|state| state.decoding -= 1);
            }
            (Task::Finish(finished), Err(error)) => {
                self.shared.fail(&finished.job, error);
                drop(finished);
                self.shared.change(|state| state.decoding -= 1);
            }
            (Task::Preview(preview), Ok(picture)) => {
                let Preview { reply, image, number, .. } = preview;
                reply.send(Event::Partial { image, number, picture });
            }
            (Task::Preview(_), Err(error)) => {
                self.shared.say(&format!("a preview was left out: {error}"));
            }
            (Task::Encode(..) | Task::Decode(..), _) => {}
        }
    }

    /// Pictures of codes (N), each of a side in pixels.
    fn pictures(&self, images: &[(&[i64], i64)]) -> Result<Vec<Picture>> {
        let rows: Vec<Tensor> = images.iter().map(|(codes, _)| Tensor::from_slice(codes)).collect();
        caught("decoding", || {
            let _turn = self.shared.turn();
            let codes = Codes::new(Tensor::stack(&rows, 0).to_device(self.device))?;
            let decoded = self.model.decode(&codes)?.into_tensor(); // (B, 3, S, S)
            let sides = (0..).zip(images);
            sides.map(|(i, (_, side))| picture(&decoded.narrow(0, i, 1), *side)).collect()
        })
    }

    fn encode(&self, images: &ImagesU8) -> Result<Codes> {
        caught("encoding", || {
            let _turn = self.shared.turn();
            let images = ImagesU8::new(images.tensor().to_device(self.device))?;
            let codes = self.model.encode(&images.to_float())?;
            Ok(Codes::new(codes.into_tensor().to_device(Device::Cpu))?)
        })
    }

    fn decode(&self, codes: &Codes) -> Result<Vec<Picture>> {
        caught("decoding", || {
            let _turn = self.shared.turn();
            let codes = Codes::new(codes.tensor().to_device(self.device))?;
            Ok(Picture::from_batch(&self.model.decode(&codes)?.to_u8())?)
        })
    }
}

/// Codes of an image to decode, and its side in pixels.
fn codes_and_size(task: &Task) -> Option<(&[i64], i64)> {
    match task {
        Task::Finish(finished) => Some((&finished.codes, finished.job.accepted.provenance.run.size)),
        Task::Preview(Preview { codes, size, .. }) => Some((codes, *size)),
        Task::Encode(..) | Task::Decode(..) => None,
    }
}

/// A picture of a decoded image (1, 3, S, S), as `gen sample` makes it.
fn picture(image: &Tensor, side: i64) -> Result<Picture> {
    let rounded = sampler::resize(base::Images::new(image.shallow_clone())?, side)?.to_u8();
    let rounded = ImagesU8::new(rounded.into_tensor().to_device(Device::Cpu))?;
    Ok(Picture::from_batch(&rounded)?.remove(0))
}

/// Calls `f`; its panic is an error.
fn caught<R>(what: &'static str, f: impl FnOnce() -> Result<R>) -> Result<R> {
    guarded(f).unwrap_or_else(|message| Err(EngineError::Failed { what, message }))
}
