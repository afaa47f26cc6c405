//! Beginning with another model's weights, and parameters that are not trained.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ar_model::{ArConfig, Gpt};
use base::config::Document;
use base::{Build, Hint, Vars};
use common::{ar_task, contents, go, images, newest_state, tokenizer_task};
use tch::{Device, Kind};
use train::Error;

/// Values by name.
fn weights_of(file: &Path) -> BTreeMap<String, Vec<u8>> {
    contents(file).into_iter().map(|(name, _, bytes)| (name, bytes)).collect()
}

/// A folder of images, a tokenizer and a transformer of 1000 classes, both hardly trained.
fn models(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let (data, tokenizer, ar) = (images(dir), dir.join("tokenizer"), dir.join("ar"));
    go(tokenizer_task(&data, &["optimization.steps=2"]), &tokenizer, 100).unwrap();
    let images = format!("data.images.train={}", data.display());
    go(ar_task(&tokenizer, &[&images, "optimization.steps=2"]), &ar, 100).unwrap();
    (data, tokenizer, ar)
}

const STILL: &str = "freeze=[layers, tok_embeddings, positional_embedding, norm, output]";

#[test]
fn a_transformer_for_other_classes_keeps_all_but_the_class_embedding() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, tokenizer, ar) = models(dir.path());
    let images = format!("data.images.train={}", data.display());
    let from = format!("init_from={}", ar.display());
    let all = [images.as_str(), &from, STILL, "model.conditioning.num_classes=300", "optimization.steps=4"];
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    go(ar_task(&tokenizer, &all), &a, 100).unwrap();

    // Only the new part was trained, and only it has a state in the optimizer.
    let (before, after) =
        (weights_of(&ar.join("weights.safetensors")), weights_of(&a.join("weights.safetensors")));
    const NEW: &str = "cls_embedding.embedding_table.weight";
    assert_eq!(after[NEW].len(), 301 * 16 * 4);
    for (name, bytes) in &after {
        assert!(name == NEW || *bytes == before[name], "`{name}` changed");
    }
    let state = weights_of(&newest_state(&a));
    let moments: Vec<&String> = state.keys().filter(|n| n.starts_with("optimizer")).collect();
    assert!(moments.len() == 3 && moments.iter().all(|n| n.ends_with(NEW)), "{moments:?}");
    assert!(state.keys().filter(|n| n.starts_with("ema/")).count() == 1);

    let account = std::fs::read_to_string(a.join("initial-weights.yaml")).unwrap();
    let account = Document::parse("account", &account).unwrap().to_json().unwrap();
    assert_eq!(account["new"].as_array().unwrap().len(), 1);
    assert_eq!(account["new"][0], NEW);
    assert_eq!(account["taken"].as_array().unwrap().len(), before.len() - 1);
    assert!(std::fs::read_to_string(a.join("recipe.yaml")).unwrap().contains("init_from: /"));

    // Interrupted and resumed after the first weights were deleted.
    assert_eq!(go(ar_task(&tokenizer, &all), &b, 2).unwrap().step, 2);
    std::fs::remove_dir_all(&ar).unwrap();
    go(ar_task(&tokenizer, &all), &b, 100).unwrap();
    assert_eq!(state, weights_of(&newest_state(&b)));
}

#[test]
fn nothing_else_may_differ_and_the_number_of_steps_starts_at_nought() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let (data, tokenizer, ar) = models(dir.path());
    let images = format!("data.images.train={}", data.display());
    let from = format!("init_from={}", ar.join("weights.safetensors").display());
    let a = dir.path().join("a");
    let error = go(ar_task(&tokenizer, &[&images, &from, "model.layers=3"]), &a, 1).unwrap_err();
    assert!(error.to_string().contains("does not fit the model"), "{error}");
    assert!(!a.exists(), "nothing is written");
    // A file as good as a directory, and of a tokenizer as well; an official one is read in the
    // same way.
    let from = format!("init_from={}", tokenizer.join("weights.safetensors").display());
    let changes =
        [from.as_str(), "freeze=[encoder, s2to1encoder, quant_conv, quantize]", "optimization.steps=3"];
    go(tokenizer_task(&data, &changes), &a, 100).unwrap();
    assert_eq!(common::logged(&a, "step"), [1.0, 2.0, 3.0]);
    let (before, after) =
        (weights_of(&tokenizer.join("weights.safetensors")), weights_of(&a.join("weights.safetensors")));
    let frozen =
        |n: &str| ["encoder.", "s2to1encoder.", "quant_conv", "quantize"].iter().any(|p| n.starts_with(p));
    // Without a teacher nothing asks the alignment head for anything.
    let trained = |n: &str| n.starts_with("decoder.") || n.starts_with("s1to2decoder.transformer.");
    let weights = || after.iter().filter(|(name, _)| name.ends_with("weight"));
    assert!(weights().filter(|(n, _)| frozen(n)).all(|(name, bytes)| *bytes == before[name]));
    // A weight with hardly any gradient may stay where it is by rounding, but not many.
    let still: Vec<_> = weights().filter(|(n, b)| trained(n) && **b == before[*n]).map(|(n, _)| n).collect();
    assert!(still.len() * 5 < weights().filter(|(n, _)| trained(n)).count(), "{still:?}");
}

#[test]
fn what_is_frozen_must_exist_and_leave_something() {
    let _alone = common::alone();
    let dir = tempfile::tempdir().unwrap();
    let data = images(dir.path());
    let run = dir.path().join("a");
    let error = go(tokenizer_task(&data, &["freeze=[encodr]"]), &run, 1).unwrap_err();
    assert!(matches!(&error, Error::NoSuchParameter { pattern, .. } if pattern == "encodr"), "{error}");
    assert!(error.hints()[0].contains("`encoder`"), "{:?}", error.hints());
    let error = go(tokenizer_task(&data, &["freeze=['**']"]), &run, 1).unwrap_err();
    assert!(error.to_string().contains("nothing is left to train"), "{error}");
}

#[test]
fn a_transformer_of_texts_takes_blocks_codes_and_head_of_one_of_classes() {
    let dir = tempfile::tempdir().unwrap();
    let build = |conditioning: &str| {
        let text = format!(
            "{{type: gpt, width: 16, layers: 2, heads: 2, vocab_size: 32, num_tokens: 16, position: rope_2d, \
             conditioning: {conditioning}}}"
        );
        let config = ArConfig::from_document(&Document::parse("test", &text).unwrap()).unwrap();
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        Gpt::new(&vars.root(), &config).unwrap();
        vars
    };
    let classes = build("{type: class, num_classes: 10}");
    let file = dir.path().join("classes.safetensors");
    let tensors = weights::named_tensors(&classes);
    weights::save_safetensors(&file, &tensors, &BTreeMap::new()).unwrap();
    let texts = build("{type: text, length: 4, feature_width: 12}");
    let (report, _) =
        weights::adopt(&texts, &file, ar_model::key_map(), &["cls_embedding"], Vec::new).unwrap();
    assert_eq!(report.applied.len(), tensors.len() - 1);
    assert_eq!(report.dropped.len(), 1);
    let new: Vec<&str> = report.kept.iter().map(|k| k.name.as_str()).collect();
    assert!(new.len() == 3 && new.iter().all(|n| n.starts_with("cls_embedding.")), "{new:?}");
    let same = |name: &str| classes.get(name).unwrap() == texts.get(name).unwrap();
    assert!(same("layers.1.attention.wqkv.weight") && same("tok_embeddings.weight") && same("output.weight"));
}
