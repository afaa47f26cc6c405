//! Passes that fail.

use std::sync::{Arc, Mutex};

use super::models::CLASS;
use super::{Made, class, engine_of, hold, outcomes, request, until};
use crate::{Engine, EngineError};

/// Makes two images while the pass after next fails with this message, and a third afterwards.
/// Returns the outcomes of the two, and the lines of the log.
fn fail(engine: &Engine, message: &'static str) -> (Vec<Result<Made, EngineError>>, Vec<String>) {
    let lines = Arc::new(Mutex::new(vec![]));
    let log = Arc::clone(&lines);
    engine.set_log(move |line| log.lock().unwrap().push(line.to_owned()));
    hold(engine, true);
    let submission = engine.submit(request(vec![class(0), class(1)])).unwrap();
    until(engine, "images run", |engine| engine.status().active > 0);
    engine.shared().change(|state| state.faults.push_back(message));
    hold(engine, false);
    let found = outcomes(submission);
    assert!(outcomes(engine.submit(request(vec![class(2)])).unwrap()).remove(0).is_ok());
    until(engine, "all is done", Engine::idle);
    let lines = lines.lock().unwrap().clone();
    (found, lines)
}

#[test]
fn a_failed_step_fails_its_images_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_of(dir.path(), CLASS, 2, 10);
    let (found, lines) = fail(&engine, "on purpose");
    assert_eq!(found.len(), 2);
    for outcome in found {
        let error = outcome.unwrap_err().to_string();
        assert_eq!(error, "a step of the transformer failed: on purpose");
    }
    assert_eq!(lines, ["a step failed, and with it 2 images: on purpose"]);
    assert_eq!((engine.status().failed, engine.status().images, engine.status().slots), (2, 1, 2));
}

#[test]
fn a_lack_of_memory_halves_the_slots_and_loses_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_of(dir.path(), CLASS, 2, 10);
    let plain = outcomes(engine.submit(request(vec![class(0), class(1)])).unwrap());
    const MESSAGE: &str =
        "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried\\nat\")";
    let (found, lines) = fail(&engine, MESSAGE);
    for (found, plain) in found.into_iter().zip(plain) {
        assert_eq!(found.unwrap(), plain.unwrap());
    }
    let line = "out of memory: 1 images share a step from now on (CUDA out of memory. Tried)";
    assert_eq!(lines, [line]);
    assert_eq!((engine.status().failed, engine.status().slots), (0, 1));
    let (found, _) = fail(&engine, MESSAGE); // of a single image
    assert!(matches!(found[0], Err(EngineError::OutOfMemory { .. })) && found[1].is_ok());
}

#[test]
fn logits_that_are_not_finite_fail_their_image_alone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_of(dir.path(), CLASS, 2, 10);
    let mut wild = class(0);
    wild.sampling.cfg = Some(3e38);
    let found = outcomes(engine.submit(request(vec![wild, class(1)])).unwrap());
    assert!(found[0].as_ref().unwrap_err().to_string().contains("not finite"), "{found:?}");
    assert!(found[1].is_ok());
    until(&engine, "all is done", Engine::idle);
    assert_eq!((engine.status().failed, engine.status().images), (1, 1));
}
