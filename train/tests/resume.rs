//! A saved and resumed run equals an unbroken one, bit for bit, on the CPU in fp32.

mod common;

use std::path::Path;

use common::{ar_task, contents, go, images, logged, newest_state, tokenizer_task};
use train::Task;

/// Both runs end with the same files, but for times.
fn assert_same(unbroken: &Path, resumed: &Path) {
    let (a, b) = (newest_state(unbroken), newest_state(resumed));
    assert_eq!(a.file_name(), b.file_name());
    for ((name, shape, bytes), other) in contents(&a).into_iter().zip(contents(&b)) {
        assert!((&name, &shape, &bytes) == (&other.0, &other.1, &other.2), "state tensor {name} differs");
    }
    let weights = |dir: &Path| contents(&dir.join("weights.safetensors"));
    assert!(weights(unbroken) == weights(resumed), "the kept weights differ");
    for key in ["step", "grad_norm", "lr"] {
        assert_eq!(logged(unbroken, key), logged(resumed, key), "{key}");
    }
}

#[test]
fn a_tokenizer_resumes_exactly() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, a, b) = (images(dir.path()), dir.path().join("a"), dir.path().join("b"));
    assert!(!go(tokenizer_task(&data, &[]), &a, 100).unwrap().interrupted);
    // Stopped before and after the discriminator's first step, the second time between two saves.
    assert_eq!(go(tokenizer_task(&data, &[]), &b, 2).unwrap().step, 2);
    assert_eq!(go(tokenizer_task(&data, &[]), &b, 3).unwrap().step, 5);
    assert_eq!(go(tokenizer_task(&data, &[]), &b, 100).unwrap().step, 7);
    assert_same(&a, &b);
}

/// Frozen DINO backbone, spectral norms, draws of augmentation and crops, LPIPS with dropout,
/// adaptive weight; then fixed random mixing of frozen features, warm-up, an optimizer of its own;
/// then double backward; then averages of LeCam.
const ADVERSARIES: [&[&str]; 4] = [
    &[
        "losses.adversarial.discriminator={type: dino, weights: random:3, width: 12, heads: 2, depth: 2, taps: [1], \
         image_size: 8, patch_size: 4, kernel: 3}",
        "losses.adversarial.diffaug={}",
        "losses.adversarial.adaptive=true",
        "losses.perceptual={type: lpips, weight: 0.1, trunk: random:1, heads: random:2, dropout: true}",
    ],
    &[
        "losses.adversarial.discriminator={type: projected, weights: random:3, image_size: 32, channels: 8}",
        "losses.adversarial.diffaug={}",
        "losses.adversarial.warmup=3",
        "losses.adversarial.optimization={lr: 1.0e-4, betas: [0.0, 0.99]}",
    ],
    &["losses.adversarial.discriminator={type: stylegan, channels: 8}", "losses.adversarial.loss=r3gan"],
    &["losses.adversarial.loss=non_saturating", "losses.adversarial.lecam={weight: 0.1}"],
];

#[test]
fn every_adversary_resumes_exactly() {
    let _alone = common::alone();
    for changes in ADVERSARIES {
        let dir = tempfile::tempdir().unwrap();
        let (data, a, b) = (images(dir.path()), dir.path().join("a"), dir.path().join("b"));
        go(tokenizer_task(&data, changes), &a, 100).unwrap();
        assert_eq!(go(tokenizer_task(&data, changes), &b, 4).unwrap().step, 4);
        assert_eq!(go(tokenizer_task(&data, changes), &b, 100).unwrap().step, 7);
        assert_same(&a, &b);
        assert_eq!(logged(&a, "adversarial"), logged(&b, "adversarial"), "{changes:?}");
        assert_eq!(logged(&a, "adversarial").len(), 5, "{changes:?}");
    }
}

/// Frozen features everywhere: beside the encoder, as the teacher of a decoder layer, and as the
/// perceptual loss.
const FROZEN: [&[&str]; 2] = [
    &[
        "model.vision={size: lite0, block: 4, upsample: 2}",
        "init.vision=random:7",
        "freeze=[vision]",
        "model.alignment.width=40",
        "losses.semantic={weight: 0.5, teacher: {type: vision}}",
        "losses.perceptual={type: efficientnet_lite, weight: 1.0, weights: 'random:8', shift: 3, blocks: [0, 4]}",
    ],
    &[
        "model.alignment.width=112",
        "losses.semantic={weight: 0.5, teacher: {type: efficientnet_lite, size: lite0, weights: 'random:7', block: 10, \
         upsample: 4}}",
    ],
];

#[test]
fn frozen_features_resume_exactly_and_stay_as_they_are() {
    let _alone = common::alone();
    for changes in FROZEN {
        let dir = tempfile::tempdir().unwrap();
        let (data, a, b) = (images(dir.path()), dir.path().join("a"), dir.path().join("b"));
        let task = tokenizer_task(&data, changes);
        let vision = task.vars().get("vision._conv_stem.weight").map(|t| t.copy());
        go(task, &a, 100).unwrap();
        go(tokenizer_task(&data, changes), &b, 4).unwrap();
        go(tokenizer_task(&data, changes), &b, 100).unwrap();
        assert_same(&a, &b);
        assert!(logged(&a, "semantic").iter().all(|v| v.is_finite()));
        if let Some(before) = vision {
            let name = "vision._conv_stem.weight";
            let saved =
                contents(&a.join("weights.safetensors")).into_iter().find(|(n, ..)| n == name).unwrap();
            let before = Vec::<f32>::try_from(before.flatten(0, -1)).unwrap();
            let bytes: Vec<u8> = before.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert!(saved.2 == bytes, "the frozen network moved");
        }
    }
}

#[test]
fn a_killed_run_repeats_the_steps_after_its_last_save() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, a, b) = (images(dir.path()), dir.path().join("a"), dir.path().join("b"));
    go(tokenizer_task(&data, &[]), &a, 100).unwrap();
    go(tokenizer_task(&data, &[]), &b, 5).unwrap();
    // As if it had been killed: the newest state is cut short, and the log is ahead of the one
    // before it.
    let newest = newest_state(&b);
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(go(tokenizer_task(&data, &[]), &b, 100).unwrap().step, 7);
    assert_same(&a, &b);
}

#[test]
fn a_transformer_resumes_exactly_with_dropout_and_a_tokenizer_in_the_loop() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, tokenizer) = (images(dir.path()), dir.path().join("tokenizer"));
    go(tokenizer_task(&data, &["optimization.steps=2"]), &tokenizer, 100).unwrap();
    let changes = [format!("data.images.train={}", data.display())];
    let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    go(ar_task(&tokenizer, &changes), &a, 100).unwrap();
    go(ar_task(&tokenizer, &changes), &b, 3).unwrap();
    go(ar_task(&b.join("tokenizer"), &changes), &b, 100).unwrap();
    assert_same(&a, &b);
    assert_eq!(
        common::open_tokenizer(&b.join("tokenizer")).fingerprint().unwrap(),
        common::open_tokenizer(&tokenizer).fingerprint().unwrap()
    );
}

/// Any number of workers makes the same of the same micro-batches, state for state; a run may go on
/// with another number.
fn assert_workers_alike<T: Task>(dir: &Path, task: impl Fn(&[&str]) -> T) {
    let threads = tch::get_num_threads();
    let run = |name: &str, threads: i32, workers: usize, steps: u64| {
        tch::set_num_threads(threads);
        let workers = format!("optimization.workers={workers}");
        let task = task(&["optimization.micro_batches=4", "optimization.batch_size=8", &workers]);
        go(task, &dir.join(name), steps).unwrap();
        dir.join(name)
    };
    let one = run("one", 1, 1, 100);
    for (name, threads, workers) in [("capped", 1, 2), ("two", 2, 2), ("uneven", 3, 3)] {
        assert_same(&one, &run(name, threads, workers, 100));
    }
    run("changed", 2, 2, 4);
    assert_same(&one, &run("changed", 4, 4, 100));
    tch::set_num_threads(threads);
}

#[test]
fn workers_train_the_same_tokenizer() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    let plain: &[&str] = &["losses.adversarial=null"];
    for (i, changes) in [plain, &[]].iter().chain(&ADVERSARIES).enumerate() {
        let runs = dir.path().join(i.to_string());
        assert_workers_alike(&runs, |more| tokenizer_task(&data, &[*changes, more].concat()));
    }
}

#[test]
fn workers_train_the_same_transformer() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, tokenizer) = (images(dir.path()), dir.path().join("tokenizer"));
    go(tokenizer_task(&data, &["optimization.steps=2"]), &tokenizer, 100).unwrap();
    let images = format!("data.images.train={}", data.display());
    let dropout =
        "model.dropout={token: 0.2, residual: 0.2, feed_forward: 0.2, drop_path: 0.3, condition: 0.5}";
    for (i, recompute) in ["recompute=false", "recompute=true"].into_iter().enumerate() {
        let changes = [images.as_str(), dropout, recompute];
        let runs = dir.path().join(i.to_string());
        assert_workers_alike(&runs, |more| ar_task(&tokenizer, &[&changes, more].concat()));
    }
}
