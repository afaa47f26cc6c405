//! Training on captions: ten images, an encoder trained along, a frozen one, and stored features.

mod common;

use std::path::{Path, PathBuf};

use ar_model::AutoregressiveModel as _;
use backbones::text_encoder::{
    EncoderFiles, T5Config, T5Encoder, TextDescription, TextEncoder, WhichEncoder, learn_tokenizer,
};
use base::{Build, Hint, Precision, Vars};
use common::{contents, go, logged, open_tokenizer, tokenizer_task};
use data::text_features::{EncoderId, TextPlan, TextWriter};
use tch::{Device, Kind};
use train::tasks::ArTask;

/// The common recipe, made one for texts.
const TEXT: [&str; 5] = [
    "model.conditioning={type: text, length: 8, feature_width: 12}",
    "text={encoder: {type: joint, vocab_size: 270, layers: 1, heads: 2, head_width: 4, feed_forward_width: 16}, \
     clean: true, templates: [], first_sentence: 0.0}",
    "optimization.steps=6",
    "optimization.batch_size=5",
    "optimization.ema=null",
];

/// Ten pictures with a caption each, in a flat folder.
fn captioned(dir: &Path) -> PathBuf {
    let root = dir.join("captioned");
    std::fs::create_dir_all(&root).unwrap();
    for i in 0..10u32 {
        let pixel =
            |x: u32, y: u32| image::Rgb([(13 * x + 25 * i) as u8, (11 * y) as u8, (9 * (x + y)) as u8]);
        image::RgbImage::from_fn(20, 18, pixel).save(root.join(format!("{i}.png"))).unwrap();
        std::fs::write(root.join(format!("{i}.txt")), format!("A red panda, number {i}. It sleeps.\n"))
            .unwrap();
    }
    root
}

fn tokenizer(dir: &Path, data: &Path) -> PathBuf {
    let path = dir.join("tokenizer");
    go(tokenizer_task(data, &["optimization.steps=2"]), &path, 100).unwrap();
    path
}

fn task(tokenizer: &Path, changes: &[String]) -> train::Result<ArTask> {
    let tokenizer = open_tokenizer(tokenizer);
    let changes: Vec<&str> = TEXT.into_iter().chain(changes.iter().map(String::as_str)).collect();
    ArTask::new(common::ar_recipe(&changes, &tokenizer)?, tokenizer, Device::Cpu)
}

fn changes(data: &Path, more: &[&str]) -> Vec<String> {
    let mut all = vec![format!("data.images.train={}", data.display())];
    all.extend(more.iter().map(|c| (*c).to_owned()));
    all
}

/// A frozen encoder of width 12 with random weights, in Hugging Face's layout.
fn frozen(dir: &Path) -> PathBuf {
    let folder = dir.join("t5");
    std::fs::create_dir_all(&folder).unwrap();
    let json = learn_tokenizer(["a red panda".to_owned()].into_iter(), 270).unwrap();
    std::fs::write(folder.join("tokenizer.json"), json).unwrap();
    let config = T5Config {
        vocab_size: 280,
        d_model: 12,
        d_kv: 4,
        d_ff: 16,
        num_layers: 1,
        num_heads: 2,
        ..T5Config::named("small").unwrap()
    };
    std::fs::write(folder.join("config.json"), serde_json::to_string(&config).unwrap()).unwrap();
    tch::manual_seed(3);
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    T5Encoder::new(&vars.root(), &config);
    let tensors = weights::named_tensors(&vars);
    weights::save_safetensors(&folder.join("model.safetensors"), &tensors, &Default::default()).unwrap();
    folder
}

#[test]
fn an_encoder_trained_along_is_kept_with_the_model_and_resumes_exactly() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let data = captioned(dir.path());
    let (tok, a, b) = (tokenizer(dir.path(), &data), dir.path().join("a"), dir.path().join("b"));
    go(task(&tok, &changes(&data, &[])).unwrap(), &a, 100).unwrap();
    assert_eq!(logged(&a, "loss").len(), 6);
    assert_eq!(go(task(&tok, &changes(&data, &[])).unwrap(), &b, 3).unwrap().step, 3);
    go(task(&tok, &changes(&data, &[])).unwrap(), &b, 100).unwrap();
    let weights = |dir: &Path| contents(&dir.join("weights.safetensors"));
    assert!(weights(&a) == weights(&b), "a resumed run differs");

    assert_eq!(TextDescription::in_directory(&a).unwrap().unwrap().encoder, WhichEncoder::Inside);
    let model = ar_model::open_dir(&a, Device::Cpu, Precision::Fp32).unwrap();
    assert_eq!(model.model.spec().prefix_len, 8);
    let encoder = TextEncoder::open(&EncoderFiles::inside(&a), 8, true, Device::Cpu, Kind::Float).unwrap();
    assert_eq!(encoder.encode(&["a red panda", ""]).unwrap().features.size(), [2, 8, 12]);

    // Its own weights begin another run, encoder included.
    let from = format!("init_from={}", a.display());
    let c = dir.path().join("c");
    go(task(&tok, &changes(&data, &[&from, "freeze=[layers]"])).unwrap(), &c, 1).unwrap();
    let account = std::fs::read_to_string(c.join("initial-weights.yaml")).unwrap();
    assert!(account.contains("text_encoder.shared.weight") && account.contains("new: []"), "{account}");
}

#[test]
fn a_frozen_encoder_and_its_stored_features_train_alike() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let data = captioned(dir.path());
    let (tok, t5) = (tokenizer(dir.path(), &data), frozen(dir.path()));
    let on_the_fly = format!("text.encoder={{type: frozen, folder: {}, precision: fp32}}", t5.display());
    let a = dir.path().join("a");
    go(task(&tok, &changes(&data, &[&on_the_fly])).unwrap(), &a, 100).unwrap();
    assert!(matches!(
        TextDescription::in_directory(&a).unwrap().unwrap().encoder,
        WhichEncoder::Outside { folder: Some(_), .. }
    ));

    let features = store(dir.path(), &t5, 10);
    let stored = format!("text.encoder={{type: stored, features: [{}]}}", features.display());
    let b = dir.path().join("b");
    go(task(&tok, &changes(&data, &[&stored])).unwrap(), &b, 100).unwrap();
    assert_eq!(logged(&a, "loss"), logged(&b, "loss"));

    // A caption whose features are missing is named; so is another cleaning.
    let error = go(
        task(&tok, &changes(&data, &[&stored, "text.first_sentence=1.0"])).unwrap(),
        &dir.path().join("c"),
        100,
    )
    .unwrap_err();
    assert!(error.to_string().contains("no features of the caption \"A red panda, number"), "{error}");
    assert!(error.hints()[0].contains("gen extract --text"));
    let error = task(&tok, &changes(&data, &[&stored, "text.clean=false"])).err().unwrap().to_string();
    assert!(error.contains("captions cleaned: true"), "{error}");
}

/// Features of the first `count` captions.
fn store(dir: &Path, t5: &Path, count: usize) -> PathBuf {
    let encoder = TextEncoder::open(&EncoderFiles::in_folder(t5), 8, true, Device::Cpu, Kind::Float).unwrap();
    let captions: Vec<String> = (0..count).map(|i| format!("A red panda, number {i}. It sleeps.")).collect();
    let plan = TextPlan {
        encoder: EncoderId {
            fingerprint: encoder.fingerprint().into(),
            width: 12,
            length: 8,
            clean: true,
            precision: "fp32".into(),
        },
        captions: count,
        shard_size: 4,
        captions_fingerprint: "test".into(),
        data: "test".into(),
    };
    let folder = dir.join("features");
    let writer = TextWriter::create(&folder, plan).unwrap();
    for shard in writer.missing() {
        let part = &captions[writer.range(shard)];
        let features: Vec<_> = part.iter().map(|c| encoder.encode(&[c]).unwrap().texts().remove(0)).collect();
        writer.write(shard, part, &features).unwrap();
    }
    writer.finish().unwrap();
    folder
}

#[test]
fn classes_get_captions_from_templates_and_missing_captions_are_named() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let data = common::images(dir.path());
    let tok = tokenizer(dir.path(), &data);
    let templates = "text.templates=['a photo of {a}', '{}']";
    go(task(&tok, &changes(&data, &[templates])).unwrap(), &dir.path().join("a"), 100).unwrap();

    let error =
        go(task(&tok, &changes(&data, &[])).unwrap(), &dir.path().join("b"), 1).unwrap_err().to_string();
    assert!(error.contains(".png` has class") && error.contains("text.templates"), "{error}");
    let error = task(&tok, &changes(&data, &["text.templates=['a dog']"])).err().unwrap().to_string();
    assert!(error.contains("\"a dog\""), "{error}");

    let captions = captioned(dir.path());
    std::fs::remove_file(captions.join("7.txt")).unwrap();
    let error = task(&tok, &changes(&captions, &[])).err().unwrap().to_string();
    assert!(error.contains("7.png") && error.contains("no caption"), "{error}");
    std::fs::write(captions.join("7.txt"), " \n").unwrap();
    let error = task(&tok, &changes(&captions, &[])).err().unwrap().to_string();
    assert!(error.contains("7.txt") && error.contains("empty"), "{error}");

    let without = task(&tok, &changes(&data, &["text=null"])).err().unwrap().to_string();
    assert!(without.contains("does not say where features come from"), "{without}");
    let frozen = "text.encoder={type: frozen, folder: null}";
    let error = task(&tok, &changes(&data, &[templates, frozen])).err().unwrap();
    assert!(error.hints()[0].contains("--text-encoder"), "{error}");
}
