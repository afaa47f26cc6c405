//! Names, shapes and parameter counts of the released models.
//!
//! `tests/manifests/*.json` were written from the official modules; here our networks are
//! described, without memory, from the files in `configs/` and compared. `tests/official/*.yaml`
//! hold the settings of the official tokenizer configurations, which must be accepted unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ar_model::{ArConfig, Gpt};
use base::config::Document;
use base::{Build, Vars};
use serde_json::Value;
use tch::{Device, Kind};
use tokenizer::{Model, TokenizerConfig};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root(folder))
        .unwrap_or_else(|e| panic!("{folder}: {e}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} is empty");
    files
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The variables of a configuration, described without memory.
fn describe(config: &Path) -> Vars {
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
    let document = Document::read(config).unwrap();
    match document.to_json().unwrap()["type"].as_str() {
        Some("gpt") => drop(Gpt::new(&vars.root(), &ArConfig::from_document(&document).unwrap()).unwrap()),
        _ => drop(Model::new(&vars.root(), &TokenizerConfig::from_document(&document).unwrap()).unwrap()),
    }
    vars
}

/// `layers.{0..2}.w` → `layers.0.w`, `layers.1.w`, `layers.2.w`.
fn expand(pattern: &str) -> Vec<String> {
    let Some((head, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let (range, tail) = rest.split_once('}').expect("a closed brace");
    let (from, to) = range.split_once("..").expect("a range");
    let (from, to): (u32, u32) = (from.parse().unwrap(), to.parse().unwrap());
    (from..=to).map(|i| format!("{head}{i}{tail}")).collect()
}

/// Name → shape and whether it is a buffer.
type Table = BTreeMap<String, (Vec<i64>, bool)>;

fn expected_table(manifest: &Value) -> Table {
    let buffers: Vec<&str> =
        manifest["buffers"].as_array().unwrap().iter().map(|b| b.as_str().unwrap()).collect();
    let mut table = Table::new();
    for (pattern, shape) in manifest["shapes"].as_object().unwrap() {
        let shape: Vec<i64> = serde_json::from_value(shape.clone()).unwrap();
        for name in expand(pattern) {
            let buffer = buffers.contains(&name.as_str());
            assert!(table.insert(name.clone(), (shape.clone(), buffer)).is_none(), "{name} twice");
        }
    }
    table
}

#[test]
fn every_configuration_builds_exactly_the_released_variables() {
    let mut covered = BTreeSet::new();
    for path in files("tests/manifests") {
        let manifest = json(&path);
        let expected = expected_table(&manifest);
        assert_eq!(expected.len() as u64, manifest["tensors"].as_u64().unwrap(), "{}", path.display());
        for config in manifest["configs"].as_array().unwrap() {
            let config = root("configs").join(config.as_str().unwrap());
            let vars = describe(&config);
            let found: Table =
                vars.all().into_iter().map(|v| (v.name, (v.tensor.size(), v.buffer))).collect();
            for (name, entry) in &expected {
                assert_eq!(found.get(name), Some(entry), "{}: {name} (shape, buffer)", config.display());
            }
            let extra: Vec<&String> = found.keys().filter(|n| !expected.contains_key(*n)).collect();
            assert!(extra.is_empty(), "{}: not in the release: {extra:?}", config.display());
            let parameters = manifest["parameters"].as_i64().unwrap();
            assert_eq!(vars.num_parameters(), parameters, "{}", config.display());
            covered.insert(config);
        }
    }
    let all: BTreeSet<PathBuf> = ["configs/tokenizer", "configs/ar"].into_iter().flat_map(files).collect();
    let uncovered: Vec<&PathBuf> = all.difference(&covered).collect();
    assert!(uncovered.is_empty(), "no manifest covers {uncovered:?}");
}

/// The configuration of ours that equals an official YAML.
const SAME: &[(&str, &str)] = &[
    ("VQ_SS256", "gigatok-ss256"),
    ("VQ_SB256", "gigatok-sb256"),
    ("VQ_BL256", "gigatok-bl256"),
    ("VQ_BL256_dino_disc", "gigatok-bl256-dino-disc"),
    ("VQ_XLXXL256", "gigatok-xlxxl256"),
    ("VQ_SS256_2d", "gigatok-ss256-2d"),
    ("VQ_SB256_2d", "gigatok-sb256-2d"),
    ("VQ_BL256_2d", "gigatok-bl256-2d"),
];

#[test]
fn official_configurations_are_read_as_they_are() {
    for path in files("tests/official") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let official = TokenizerConfig::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        match SAME.iter().find(|(theirs, _)| *theirs == name) {
            Some((_, ours)) => {
                let ours = TokenizerConfig::read(&root(&format!("configs/tokenizer/{ours}.yaml"))).unwrap();
                assert_eq!(official, ours, "{name}");
            }
            // A training recipe of B-L without a configuration of ours: B-L with an entropy loss
            // and without the rotation trick.
            None => {
                assert_eq!(name, "VQ_BL256_train_new", "compare {name} with one of ours");
                let mut expected = serde_json::to_value(
                    TokenizerConfig::read(&root("configs/tokenizer/gigatok-bl256.yaml")).unwrap(),
                )
                .unwrap();
                expected["quantizer"]["entropy"] = 0.005.into();
                expected["quantizer"]["gradient"] = "straight_through".into();
                assert_eq!(serde_json::to_value(&official).unwrap(), expected, "{name}");
            }
        }
    }
}

/// The document, understood and written out again.
fn rewritten(document: &Document) -> String {
    match document.to_json().unwrap()["type"].as_str() {
        Some("gpt") => base::config::to_yaml(&ArConfig::from_document(document).unwrap()).unwrap(),
        _ => base::config::to_yaml(&TokenizerConfig::from_document(document).unwrap()).unwrap(),
    }
}

#[test]
fn a_configuration_written_out_says_the_same() {
    for path in ["configs/tokenizer", "configs/ar"].into_iter().flat_map(files) {
        let text = rewritten(&Document::read(&path).unwrap());
        let again = rewritten(&Document::parse("written out", &text).unwrap());
        assert_eq!(text, again, "{}", path.display());
    }
}
