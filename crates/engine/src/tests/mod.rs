//! The engine on small models: every image is that of `gen sample`, whatever happens around it.

mod equality;
mod faults;
mod models;
mod queue;

use std::path::Path;
use std::time::{Duration, Instant};

use base::{Precision, Silent};
use generate::{Picture, Provenance};
use settings::SamplingSettings;

use crate::{Engine, EngineConfig, EngineError, Event, ImageRequest, Request, Subject, Submission};

/// An engine of a small model with these options.
fn engine_of(dir: &Path, options: &str, slots: usize, queue: usize) -> Engine {
    models::write_model(dir, options);
    start(dir, Precision::Fp32, slots, queue)
}

fn start(dir: &Path, precision: Precision, slots: usize, queue: usize) -> Engine {
    let models = models::models(dir, precision);
    Engine::start(EngineConfig { models, encoder: None, slots: Some(slots), queue }, &mut Silent).unwrap()
}

/// An image of a class at the model's settings.
fn class(class: i64) -> ImageRequest {
    ImageRequest {
        subject: Subject::Class(class),
        negative_prompt: None,
        sampling: SamplingSettings::default(),
        seed: 5,
        index: 0,
        size: None,
    }
}

fn request(images: Vec<ImageRequest>) -> Request {
    Request { images, partial_images: 0, steps: false }
}

/// A finished image.
#[derive(Debug, Clone, PartialEq)]
struct Made {
    picture: Picture,
    provenance: Provenance,
    codes: Vec<i64>,
    text_tokens: u64,
}

/// Images of a request, or the errors in their places.
fn outcomes(mut submission: Submission) -> Vec<Result<Made, EngineError>> {
    let mut found = vec![];
    while let Some(event) = submission.blocking_next() {
        match event {
            Event::Done { image, picture, provenance, codes, text_tokens, .. } => {
                found.push((image, Ok(Made { picture, provenance, codes, text_tokens })));
            }
            Event::Failed { image, error } => found.push((image, Err(error))),
            Event::Queued { .. } | Event::Started { .. } | Event::Step { .. } | Event::Partial { .. } => {}
        }
    }
    found.sort_by_key(|(image, _)| *image);
    found.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Waits for the engine to come into a state.
fn until(engine: &Engine, what: &str, reached: impl Fn(&Engine) -> bool) {
    let started = Instant::now();
    while !reached(engine) {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}: {:?}", engine.status());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn hold(engine: &Engine, held: bool) {
    engine.shared().change(|state| state.held = held);
}
