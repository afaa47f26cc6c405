//! Every recipe of the repository, at reduced width: it parses, builds, and takes a step with all
//! its losses. Frozen networks get random weights, as `random:SEED` in a recipe does.

mod common;

use std::path::{Path, PathBuf};

use base::config::Document;
use common::{go, images, logged};
use tch::Device;
use tokenizer::{Latent, TokenizerConfig};
use train::optim::Decay;
use train::schedule::Shape;
use train::tasks::{
    ArRecipe, ArTask, FeaturesRecipe, FeaturesTask, Perceptual, Teacher, TokenizerRecipe, TokenizerTask,
};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name)
}

/// The recipe's `model.type`; a feature network has none.
fn kind(document: &Document) -> Option<String> {
    document.to_json().unwrap()["model"]["type"].as_str().map(str::to_owned)
}

/// Tokenizer recipes by name, in order.
fn recipes() -> Vec<(String, Document)> {
    let is_tokenizer = |d: &Document| matches!(kind(d).as_deref(), Some("gigatok" | "llamagen_vq"));
    all_recipes().into_iter().filter(|(_, d)| is_tokenizer(d)).collect()
}

/// All recipes by name, in order.
fn all_recipes() -> Vec<(String, Document)> {
    let entries = std::fs::read_dir(folder("train")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    let named = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, Document::read(&path).unwrap())
    };
    paths.into_iter().map(named).collect()
}

/// The same recipe, small: 32×32 images, whose grid stays as large as it was, and one step with
/// every term.
fn reduced(document: &Document, data: &Path, steps: u64) -> TokenizerRecipe {
    let recipe = document.typed::<TokenizerRecipe>().unwrap();
    let mut changes = vec![
        format!("data.train={}", data.display()),
        "model.image_size=32".into(),
        "model.cnn.channels=4".into(),
        "model.cnn.norm_groups=4".into(),
        "model.cnn.encoder_multipliers=[1, 1]".into(),
        "model.cnn.decoder_multipliers=[1, 1]".into(),
        "model.cnn.res_blocks=1".into(),
        "model.cnn.z_channels=8".into(),
        "model.quantizer.codebook_size=64".into(),
        "optimization.batch_size=2".into(),
        "optimization.micro_batches=1".into(),
        format!("optimization.steps={steps}"),
        "optimization.warmup=0".into(),
        "every={log: 1, validate: 0, save: 1}".into(),
    ];
    let mut add = |change: &str| changes.push(change.into());
    if matches!(recipe.model, TokenizerConfig::Gigatok(_)) {
        add("model.encoder={width: 16, layers: 1, heads: 2}");
        add("model.decoder={width: 16, layers: 3, heads: 2}");
    }
    match &recipe.losses.perceptual {
        Some(Perceptual::EfficientnetLite { .. }) => add("losses.perceptual.weights=random:1"),
        Some(_) => {
            add("losses.perceptual.trunk=random:1");
            add("losses.perceptual.heads=random:1");
        }
        None => {}
    }
    if recipe.classifier.is_some() {
        add("classifier=null"); // it names held-out images, and there are none
    }
    match recipe.losses.semantic.as_ref().map(|s| &s.teacher) {
        Some(Teacher::Vision) => add("init.vision=random:1"),
        Some(_) => {
            add("losses.semantic.teacher={type: dinov2, size: s, weights: random:1}");
            add("model.alignment.width=384");
        }
        None => {}
    }
    if recipe.losses.adversarial.is_some() {
        add("losses.adversarial.start_step=1");
        let json = document.to_json().unwrap();
        match json["losses"]["adversarial"]["discriminator"]["type"].as_str() {
            Some("dino") => {
                add("losses.adversarial.discriminator.weights=random:1");
                add("losses.adversarial.discriminator.width=12");
                add("losses.adversarial.discriminator.heads=2");
            }
            Some("projected") => {
                add(
                    "losses.adversarial.discriminator={type: projected, weights: 'random:1', image_size: 32, channels: 8}",
                );
            }
            _ => add("losses.adversarial.discriminator.channels=4"),
        }
    }
    TokenizerRecipe::from_document(document, &changes).unwrap()
}

#[test]
fn every_recipe_takes_a_step_at_reduced_width() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    for (name, document) in recipes() {
        let recipe = reduced(&document, &data, 1);
        let (run, losses) = (dir.path().join(&name), recipe.losses.clone());
        let task = TokenizerTask::new(recipe, Device::Cpu).unwrap_or_else(|e| panic!("{name}: {e}"));
        go(task, &run, 1).unwrap_or_else(|e| panic!("{name}: {e}"));
        let has = |key: &str| logged(&run, key).len() == 1;
        assert!(has("l2") && has("codebook") && has("commitment"), "{name}");
        assert_eq!(has("perceptual"), losses.perceptual.is_some(), "{name}");
        assert_eq!(has("semantic"), losses.semantic.is_some(), "{name}");
        assert_eq!(has("feature"), losses.auxiliary.is_some(), "{name}");
        assert_eq!(has("direct_perceptual"), losses.auxiliary.is_some_and(|a| a.skip_quantizer), "{name}");
        assert_eq!(has("adversarial"), losses.adversarial.is_some(), "{name}");
        assert_eq!(has("discriminator/hinge"), losses.adversarial.is_some(), "{name}");
    }
}

#[test]
fn a_run_with_every_frozen_network_resumes_exactly_and_saves_none_of_them() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, a, b) = (images(dir.path()), dir.path().join("a"), dir.path().join("b"));
    let all = recipes();
    let (_, document) = all.iter().find(|(name, _)| name == "gigatok-bl256-dino-disc").unwrap();
    let task = || TokenizerTask::new(reduced(document, &data, 2), Device::Cpu).unwrap();
    go(task(), &a, 2).unwrap();
    go(task(), &b, 1).unwrap();
    go(task(), &b, 1).unwrap();
    let (x, y) = (common::contents(&common::newest_state(&a)), common::contents(&common::newest_state(&b)));
    assert!(x == y, "the states differ");
    let names: Vec<&str> = x.iter().map(|(name, ..)| name.as_str()).collect();
    assert!(names.contains(&"discriminator/heads.0.0.0.weight_u"), "spectral norms are saved");
    let frozen = |n: &&&str| {
        n.starts_with("discriminator/blocks") || n.contains("features.") || n.contains("pos_embed")
    };
    assert_eq!(names.iter().find(frozen), None, "frozen networks are not");
}

#[test]
fn recipes_of_released_models_train_these_models() {
    for (name, document) in recipes() {
        let config = folder("tokenizer").join(format!("{name}.yaml"));
        if !config.exists() {
            continue;
        }
        let recipe = document.typed::<TokenizerRecipe>().unwrap();
        assert_eq!(recipe.model, TokenizerConfig::read(&config).unwrap(), "{name}");
        recipe.check().unwrap();
        let released = std::fs::read_dir(folder("tokenizer")).unwrap().count();
        assert_eq!(released, 10, "a tokenizer was added: it wants a recipe");
        if let TokenizerConfig::Gigatok(c) = &recipe.model {
            let two_d = matches!(c.latent, Latent::Grid { .. });
            assert_eq!(name.ends_with("2d"), two_d, "{name}");
        }
    }
}

/// The tables of the official settings, in one place: steps, batch, warm-up, first step of the
/// discriminator, last auxiliary step.
#[test]
fn the_published_numbers_are_in_the_recipes() {
    let table: [(&str, [u64; 5]); 10] = [
        ("gigatok-bl256", [1_000_000, 256, 0, 20_000, 15_000]),
        ("gigatok-bl256-2d", [1_000_000, 256, 0, 20_000, 15_000]),
        ("gigatok-bl256-dino-disc", [1_000_000, 256, 0, 80_000, 15_000]),
        ("gigatok-sb256", [2_000_000, 128, 0, 20_000, 15_000]),
        ("gigatok-sb256-2d", [2_000_000, 128, 0, 20_000, 15_000]),
        ("gigatok-ss256", [1_000_000, 128, 0, 20_000, 15_000]),
        ("gigatok-ss256-2d", [1_000_000, 128, 0, 20_000, 15_000]),
        ("gigatok-xlxxl256", [1_500_000, 256, 5_000, 20_000, 0]),
        ("llamagen-vq16", [400_360, 128, 0, 20_000, 0]),
        ("llamagen-vq8", [400_360, 128, 0, 20_000, 0]),
    ];
    let found = recipes();
    for (name, numbers) in table {
        let (_, document) = found.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}"));
        let recipe = document.typed::<TokenizerRecipe>().unwrap();
        let o = &recipe.optimization;
        let adversarial = recipe.losses.adversarial.as_ref().unwrap();
        let auxiliary = recipe.losses.auxiliary.as_ref().map_or(0, |a| a.end_step);
        let ours = [o.steps, o.batch_size as u64, o.warmup, adversarial.start_step, auxiliary];
        assert_eq!(ours, numbers, "{name}");
        assert!(o.parity && o.lr == 1e-4 && o.adamw.betas == [0.9, 0.95], "{name}");
    }
}

/// A run of so few steps on so few images that any recipe can be tried out with.
const SHORT: [&str; 5] = [
    "optimization.batch_size=2",
    "optimization.micro_batches=1",
    "optimization.steps=1",
    "optimization.warmup=0",
    "every={log: 1, validate: 0, save: 1}",
];

#[test]
fn every_other_recipe_takes_a_step_at_reduced_width() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    let tokenizer = dir.path().join("tokenizer");
    go(common::tokenizer_task(&data, &["optimization.steps=2"]), &tokenizer, 2).unwrap();
    let changes =
        |more: &[String]| SHORT.iter().map(|s| (*s).to_owned()).chain(more.to_vec()).collect::<Vec<_>>();
    for (name, document) in all_recipes() {
        let run = dir.path().join(&name);
        match kind(&document).as_deref() {
            Some("gigatok" | "llamagen_vq") => continue,
            Some("gpt") => {
                let tokenizer = common::open_tokenizer(&tokenizer);
                let small = ["width=16", "layers=2", "heads=2", "vocab_size=null", "num_tokens=null"];
                let mut small: Vec<String> = small.iter().map(|s| format!("model.{s}")).collect();
                small.push(format!("data.images.train={}", data.display()));
                if document.to_json().unwrap().get("text").is_some() {
                    small.push("model.conditioning={type: text, length: 8, feature_width: 12}".into());
                    small.push("text.templates=['a photo of {a}']".into());
                    small.push(
                        "text.encoder={type: joint, vocab_size: 270, layers: 1, heads: 2, head_width: 4, \
                         feed_forward_width: 16}"
                            .into(),
                    );
                }
                let recipe = common::ar_recipe_from(&document, &changes(&small), &tokenizer).unwrap();
                go(ArTask::new(recipe, tokenizer, Device::Cpu).unwrap(), &run, 1).unwrap();
            }
            None => {
                let small = [format!("data.train={}", data.display()), "model.widths=[4, 8]".into()];
                let recipe = FeaturesRecipe::from_document(&document, &changes(&small)).unwrap();
                go(FeaturesTask::new(recipe, Device::Cpu).unwrap(), &run, 1).unwrap();
            }
            Some(other) => panic!("{name}: what is `{other}`?"),
        }
        assert!(logged(&run, "loss")[0].is_finite() && logged(&run, "step") == [1.0], "{name}");
    }
}

/// Steps, batch, warm-up, 10⁻⁶ of the learning rate, codes, parity and the decaying share of
/// every transformer that was published, and which configuration of `configs/ar` it is.
#[test]
fn the_published_numbers_are_in_the_transformers_recipes() {
    const WSD: f64 = 0.2;
    const CONSTANT: f64 = 0.0;
    type Row = (&'static str, &'static str, [u64; 5], f64);
    const TABLE: [Row; 19] = [
        ("gigatok-ss+gpt-b", "gigatok-gpt-b", [1_500_000, 256, 5_000, 100, 256], WSD),
        ("gigatok-sb+gpt-b", "gigatok-gpt-b", [1_500_000, 256, 5_000, 100, 256], WSD),
        ("gigatok-bl+gpt-b", "gigatok-gpt-b", [1_500_000, 256, 5_000, 100, 256], WSD),
        ("gigatok-bl-dino-disc+gpt-b", "gigatok-gpt-b", [1_500_000, 256, 5_000, 100, 256], WSD),
        ("gigatok-xlxxl+gpt-b", "gigatok-gpt-b", [1_500_000, 256, 5_000, 100, 256], WSD),
        ("gigatok-bl+gpt-xl", "gigatok-gpt-xl", [1_500_000, 256, 5_000, 100, 256], WSD),
        ("gigatok-bl+gpt-xxl", "gigatok-gpt-xxl", [750_000, 512, 200, 100, 256], WSD),
        ("gigatok-xlxxl+gpt-xxl", "gigatok-gpt-xxl", [750_000, 512, 200, 100, 256], WSD),
        ("gigatok-gpt-b-probe", "gigatok-gpt-b", [250_000, 256, 0, 100, 256], CONSTANT),
        ("llamagen-b-256", "llamagen-b-256", [1_501_200, 256, 0, 100, 256], CONSTANT),
        ("llamagen-l-256", "llamagen-l-256", [1_501_200, 256, 0, 100, 256], CONSTANT),
        ("llamagen-xl-256", "llamagen-xl-256", [250_200, 256, 0, 200, 256], CONSTANT),
        ("llamagen-xxl-256", "llamagen-xxl-256", [125_100, 512, 0, 200, 256], CONSTANT),
        ("llamagen-3b-256", "llamagen-3b-256", [125_100, 512, 0, 200, 256], CONSTANT),
        ("llamagen-b-384", "llamagen-b-384", [1_501_200, 256, 0, 100, 576], CONSTANT),
        ("llamagen-l-384", "llamagen-l-384", [1_501_200, 256, 0, 100, 576], CONSTANT),
        ("llamagen-xl-384", "llamagen-xl-384", [1_501_200, 256, 0, 200, 576], CONSTANT),
        ("llamagen-xxl-384", "llamagen-xxl-384", [750_600, 512, 0, 200, 576], CONSTANT),
        ("llamagen-3b-384", "llamagen-3b-384", [750_600, 512, 0, 200, 576], CONSTANT),
    ];
    let found = all_recipes();
    for (name, config, numbers, decay) in TABLE {
        let (_, document) = found.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}"));
        let recipe: ArRecipe = document.typed().unwrap();
        let config = ar_model::ArConfig::read(&folder("ar").join(format!("{config}.yaml"))).unwrap();
        assert_eq!(recipe.model, config, "{name}");
        let o = &recipe.optimization;
        let rate = (o.lr * 1e6).round() as u64;
        let ours = [o.steps, o.batch_size as u64, o.warmup, rate, recipe.model.num_tokens as u64];
        assert_eq!(ours, numbers, "{name}");
        let shape = if decay == CONSTANT { Shape::Constant } else { Shape::Wsd { decay_fraction: decay } };
        assert_eq!(o.schedule, shape, "{name}");
        assert_eq!(o.parity, name.starts_with("gigatok"), "{name}");
        assert!(o.adamw.betas == [0.9, 0.95] && o.adamw.weight_decay == 0.05 && o.clip == 1.0, "{name}");
        assert!(o.adamw.decay == Decay::Matrices || o.batch_size == 512, "{name}");
        o.check().unwrap();
    }
}
