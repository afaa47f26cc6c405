//! Linear probes: what must hold whatever the model.

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use base::{ImagesU8, Mode, Silent};
use common::{StopAfter, ar_task, contents, go, images, logged, open_tokenizer, tokenizer_task};
use dist::World;
use tch::{Device, Kind, Tensor};
use train::optim::{Lars, LarsConfig};
use train::probe::{
    FeatureNorm, ProbeConfig, ProbeHead, ProbeJob, ProbeResult, Subject, TokenizerPlace, probe,
};

/// Twelve images, and a transformer with dropout, briefly trained, beside its tokenizer.
fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (data, tokenizer, model) =
        (images(dir.path()), dir.path().join("tokenizer"), dir.path().join("model"));
    go(tokenizer_task(&data, &["optimization.steps=2", "model.alignment=null"]), &tokenizer, 100).unwrap();
    let changes = [
        format!("data.images.train={}", data.display()),
        "model.dropout={token: 0.2, residual: 0.2, feed_forward: 0.2, drop_path: 0.0, condition: 0.1}".into(),
        "optimization.steps=2".into(),
    ];
    go(ar_task(&tokenizer, &changes.each_ref().map(String::as_str)), &model, 100).unwrap();
    (dir, data, model)
}

fn transformer(model: &Path, dropout: bool) -> Subject {
    let loaded = ar_model::open_dir(model, Device::Cpu, base::Precision::Fp32).unwrap();
    let tokenizer = open_tokenizer(&model.join("tokenizer"));
    Subject::transformer(loaded, tokenizer, None, dropout, FeatureNorm::None).unwrap()
}

fn job(subject: Subject, data: &Path, output: PathBuf) -> ProbeJob {
    ProbeJob {
        subject,
        train: data::open(data).unwrap(),
        validation: data::open(data).unwrap(),
        config: ProbeConfig {
            epochs: 3,
            warmup_epochs: 1,
            batch_size: 3,
            accumulate: 2,
            ..ProbeConfig::default()
        },
        cached_views: None,
        cache: output.join("features"),
        output,
        max_corrupt: 0,
        device: Device::Cpu,
    }
}

fn run(job: &ProbeJob) -> ProbeResult {
    probe(job, &World::default(), &AtomicBool::new(false), &mut Silent).unwrap().unwrap()
}

#[test]
fn a_stopped_probe_ends_like_one_that_was_not() {
    let _alone = common::alone();
    let (dir, data, model) = place();
    for cached_views in [None, Some(2)] {
        let path = |name: &str| dir.path().join(format!("{name}-{cached_views:?}"));
        let with = |output| ProbeJob { cached_views, ..job(transformer(&model, true), &data, output) };
        let (whole, broken) = (with(path("whole")), with(path("broken")));
        let expected = run(&whole);
        assert_eq!((expected.steps, expected.train_images, expected.width), (6, 12, 16));
        // In the midst of extraction, then in the midst of an epoch.
        let mut interruptions = 0;
        loop {
            let stop = AtomicBool::new(false);
            let units = [5, 15, 29][interruptions.min(2)];
            match probe(&broken, &World::default(), &stop, &mut StopAfter(units, &stop)).unwrap() {
                Some(result) => {
                    assert_eq!(result.validation, expected.validation);
                    assert_eq!(result.train_loss, expected.train_loss);
                    break;
                }
                None => interruptions += 1,
            }
        }
        assert!(interruptions >= 2, "{interruptions}");
        let head = |job: &ProbeJob| contents(&job.output.join("head.safetensors"));
        assert!(head(&whole) == head(&broken), "the heads differ");
        assert_eq!(logged(&whole.output, "loss"), logged(&broken.output, "loss"));
    }
}

#[test]
fn batches_of_a_step_average_and_features_are_what_they_are_named() {
    let _alone = common::alone();
    let (dir, data, model) = place();
    let with = |batch_size, accumulate, output: &str| {
        let mut job = job(transformer(&model, false), &data, dir.path().join(output));
        job.config = ProbeConfig { batch_norm: false, batch_size, accumulate, ..job.config };
        run(&job).train_loss
    };
    let (one, two) = (with(6, 1, "one"), with(3, 2, "two"));
    assert!((one - two).abs() < 1e-6, "{one} {two}");

    let image = ImagesU8::new(Tensor::randint(256, [2, 3, 16, 16], (Kind::Uint8, Device::Cpu))).unwrap();
    let tokenizer = || open_tokenizer(&model.join("tokenizer"));
    let of = |place, norm| {
        Subject::tokenizer(tokenizer(), place, norm).unwrap().features(&image, Mode::Eval).unwrap()
    };
    assert_eq!(of(TokenizerPlace::Encoder, FeatureNorm::None).size(), [2, 16]);
    assert_eq!(of(TokenizerPlace::Projection, FeatureNorm::None).size(), [2, 8]);
    let normed = of(TokenizerPlace::Encoder, FeatureNorm::Ln).sum(Kind::Float).double_value(&[]);
    assert!(normed.abs() < 1e-4, "{normed}");
    let refused = Subject::tokenizer(tokenizer(), TokenizerPlace::Decoder, FeatureNorm::None);
    assert!(refused.err().unwrap().to_string().contains("no `alignment`"));

    let features = |s: &Subject, mode| s.features(&image, mode).unwrap();
    let (still, noisy) = (transformer(&model, false), transformer(&model, true));
    assert_eq!(features(&still, Mode::Train), features(&noisy, Mode::Eval));
    assert_ne!(features(&noisy, Mode::Train), features(&noisy, Mode::Eval));
}

#[test]
fn classes_far_apart_are_told_without_error() {
    let _alone = common::alone();
    tch::manual_seed(4);
    let options = (Kind::Float, Device::Cpu);
    let labels = Tensor::arange(120, (Kind::Int64, Device::Cpu)).remainder(6);
    let centres = Tensor::randn([6, 8], options) * 20.0 + 100.0;
    let features = centres.index_select(0, &labels) + Tensor::randn([120, 8], options);
    let head = ProbeHead::new(Device::Cpu, 8, 6, true);
    let mut lars = Lars::new(head.vars().parameters(), LarsConfig::PROBE);
    for _ in 0..200 {
        let loss = head.train(&features, true).cross_entropy_for_logits(&labels);
        let parameters: Vec<Tensor> = head.vars().parameters().into_iter().map(|v| v.tensor).collect();
        lars.step(&Tensor::run_backward(&[loss], &parameters, false, false), 5.0);
    }
    let scores = head.score(&features, &labels).unwrap();
    assert_eq!((scores.top1, scores.top5.unwrap(), scores.images), (1.0, 1.0, 120));
}
