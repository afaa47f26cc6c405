//! Refusals, cancellation and the end.

use std::time::Duration;

use settings::SamplingSettings;

use super::models::{CLASS, TEXT, WITHOUT_NULL};
use super::{class, engine_of, hold, outcomes, request, until};
use crate::{EngineError, Event, ImageRequest, Refused, Request, Subject};

fn refused<T>(result: Result<T, Refused>) -> Refused {
    result.err().expect("the request is refused")
}

/// Name of the parameter that a refusal is about.
fn param<T>(result: Result<T, Refused>) -> &'static str {
    match refused(result) {
        Refused::Invalid { param, .. } => param,
        other => panic!("{other}"),
    }
}

#[test]
fn a_full_queue_refuses_whole_requests() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_of(dir.path(), CLASS, 1, 3);
    hold(&engine, true);
    let running = engine.submit(request(vec![class(0)])).unwrap();
    until(&engine, "an image runs", |engine| engine.status().active == 1);
    let waiting = engine.submit(request(vec![class(1), class(2)])).unwrap();
    let found = refused(engine.submit(request(vec![class(3), class(4)])));
    let Refused::Full { queued: 2, limit: 3, retry_after } = found else { panic!("{found:?}") };
    assert!(retry_after > Duration::ZERO && retry_after < Duration::from_secs(60));
    let found = refused(engine.submit(request(vec![class(0); 4])));
    assert_eq!(found, Refused::TooMany { images: 4, limit: 3 });
    let mut last = engine.submit(request(vec![class(3)])).unwrap();
    assert!(matches!(last.blocking_next(), Some(Event::Queued { ahead: 2 })));
    assert_eq!((engine.status().queued, engine.status().refused), (3, 2));
    hold(&engine, false);
    for (submission, count) in [(running, 1), (waiting, 2), (last, 1)] {
        assert_eq!(outcomes(submission).into_iter().map(Result::unwrap).count(), count);
    }
    until(&engine, "all is done", crate::Engine::idle);
}

#[test]
fn dropped_submissions_free_their_slots() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_of(dir.path(), CLASS, 2, 10);
    hold(&engine, true);
    let gone = engine.submit(request(vec![class(0); 5])).unwrap();
    until(&engine, "images run", |engine| engine.status().active == 2);
    let stays = engine.submit(request(vec![class(1)])).unwrap();
    drop(gone);
    hold(&engine, false);
    assert!(outcomes(stays).remove(0).is_ok());
    until(&engine, "all is done", crate::Engine::idle);
    let status = engine.status();
    assert_eq!((status.images, status.cancelled, status.queued, status.active), (1, 5, 0, 0));
}

#[test]
fn a_drained_engine_finishes_and_a_stopped_one_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_of(dir.path(), CLASS, 1, 10);
    hold(&engine, true);
    let submission = engine.submit(request(vec![class(0), class(1)])).unwrap();
    engine.drain();
    assert_eq!(refused(engine.submit(request(vec![class(0)]))), Refused::Draining);
    assert!(!engine.idle());
    hold(&engine, false);
    assert!(outcomes(submission).iter().all(Result::is_ok));
    until(&engine, "all is done", crate::Engine::idle);

    let engine = super::start(dir.path(), base::Precision::Fp32, 1, 10);
    hold(&engine, true);
    let stopped = engine.submit(request(vec![class(0), class(1)])).unwrap();
    until(&engine, "an image runs", |engine| engine.status().active == 1);
    engine.stop();
    hold(&engine, false);
    let found = outcomes(stopped);
    assert!(found.len() == 2 && found.iter().all(|f| matches!(f, Err(EngineError::Stopped))), "{found:?}");
    let codes = base::Codes::new(tch::Tensor::from_slice(&[0i64; 16]).view([1, 16])).unwrap();
    assert!(matches!(engine.decode(codes), Err(EngineError::Stopped)));

    let engine = super::start(dir.path(), base::Precision::Fp32, 1, 10);
    let left = engine.submit(request(vec![class(0); 9])).unwrap();
    drop(engine); // the threads end
    assert_eq!(outcomes(left).len(), 9);
}

#[test]
fn what_a_model_does_not_take_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine_of(dir.path(), CLASS, 1, 10);
    let with = |change: &dyn Fn(&mut ImageRequest)| {
        let mut image = class(0);
        change(&mut image);
        engine.submit(request(vec![class(1), image]))
    };
    let set = |sampling: SamplingSettings| with(&move |image| image.sampling = sampling.clone());
    let none = SamplingSettings::default;
    assert_eq!(param(with(&|image| image.subject = Subject::Class(10))), "class");
    assert_eq!(param(with(&|image| image.subject = Subject::Class(-1))), "class");
    assert_eq!(param(with(&|image| image.subject = Subject::Prompt("a dog".into()))), "prompt");
    assert_eq!(param(with(&|image| image.negative_prompt = Some("a dog".into()))), "negative_prompt");
    assert_eq!(param(with(&|image| image.size = Some(0))), "size");
    assert_eq!(param(set(SamplingSettings { top_p: Some(2.0), ..none() })), "top_p");
    assert_eq!(param(set(SamplingSettings { cfg: Some(f64::NAN), ..none() })), "cfg");
    assert_eq!(param(set(SamplingSettings { cfg_schedule: Some("?".into()), ..none() })), "cfg_schedule");
    assert_eq!(param(set(SamplingSettings { cfg_end: Some(0.5), ..none() })), "cfg_end");
    assert_eq!(param(engine.submit(request(vec![]))), "n");
    let many = Request { partial_images: 4, ..request(vec![class(0)]) };
    assert_eq!(param(engine.submit(many)), "partial_images");
    assert_eq!((engine.status().refused, engine.status().queued), (11, 0));
    assert_eq!(engine.info().defaults.cfg, Some(2.0));

    let dir = tempfile::tempdir().unwrap();
    let engine = engine_of(dir.path(), TEXT, 1, 10);
    assert_eq!(param(engine.submit(request(vec![class(0)]))), "class");
}

#[test]
fn guidance_needs_a_null_class() {
    let dir = tempfile::tempdir().unwrap();
    super::models::write_model(dir.path(), WITHOUT_NULL);
    std::fs::write(dir.path().join("sampling.yaml"), "cfg: 1.0\n").unwrap();
    let engine = super::start(dir.path(), base::Precision::Fp32, 1, 10);
    assert!(outcomes(engine.submit(request(vec![class(0)])).unwrap()).remove(0).is_ok());
    let guided = SamplingSettings { cfg: Some(2.0), ..SamplingSettings::default() };
    assert_eq!(param(engine.submit(request(vec![ImageRequest { sampling: guided, ..class(0) }]))), "cfg");
}

/// What a server needs of them.
#[test]
fn handles_are_shared_among_threads_and_submissions_sent() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<crate::Engine>();
    sent::<crate::Submission>();
    sent::<Event>();
    fn an_error<T: std::error::Error + Send + Sync + 'static>() {}
    an_error::<EngineError>();
    an_error::<Refused>();
}

#[test]
fn slots_are_as_many_as_memory_holds() {
    let dir = tempfile::tempdir().unwrap();
    super::models::write_model(dir.path(), CLASS);
    let models = super::models::models(dir.path(), base::Precision::Fp32);
    let config = crate::EngineConfig { models, encoder: None, slots: None, queue: 70 };
    let engine = crate::Engine::start(config, &mut base::Silent).unwrap();
    assert_eq!((engine.info().slots, engine.status().slots), (64, 64)); // of a few kilobytes each
    let images = (0..70).map(|i| class(i % 10)).collect();
    assert_eq!(outcomes(engine.submit(request(images)).unwrap()).into_iter().map(Result::unwrap).count(), 70);
}
