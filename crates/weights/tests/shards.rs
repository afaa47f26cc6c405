//! Checkpoints in several files with an index, as Hugging Face writes them: safetensors, and
//! `pytorch_model.bin`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};
use weights::{Checkpoint, Format, Want};

/// Names of shards and their index.
struct Layout {
    first: &'static str,
    second: &'static str,
    index: &'static str,
    format: Format,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        first: "model-00001-of-00002.safetensors",
        second: "model-00002-of-00002.safetensors",
        index: "model.safetensors.index.json",
        format: Format::ShardedSafetensors,
    },
    Layout {
        first: "pytorch_model-00001-of-00002.bin",
        second: "pytorch_model-00002-of-00002.bin",
        index: "pytorch_model.bin.index.json",
        format: Format::ShardedTorch,
    },
];

fn tensors() -> Vec<(String, Tensor)> {
    let base = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 3, 4]);
    vec![
        ("shared.weight".into(), base.shallow_clone()),
        ("encoder.a".into(), base.transpose(0, 2)),
        ("encoder.b".into(), base.to_kind(Kind::BFloat16)),
        ("encoder.c".into(), Tensor::from_slice(&[i64::MIN, 0, i64::MAX])),
        ("scalar".into(), Tensor::from(2.5f32)),
    ]
}

/// A checkpoint of two shards in a folder of its own.
struct Sharded {
    dir: tempfile::TempDir,
    layout: &'static Layout,
    /// Tensor → shard, as the index has it.
    map: BTreeMap<String, String>,
}

impl Sharded {
    fn new(layout: &'static Layout) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let all = tensors();
        let mut map = BTreeMap::new();
        for (file, part) in [(layout.first, &all[..2]), (layout.second, &all[2..])] {
            save(&dir.path().join(file), part);
            map.extend(part.iter().map(|(name, _)| (name.clone(), file.to_owned())));
        }
        let sharded = Sharded { dir, layout, map };
        sharded.write_index();
        sharded
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_index(&self) {
        let json = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": self.map });
        std::fs::write(self.path(self.layout.index), json.to_string()).unwrap();
    }

    /// Message on opening it after the index was rewritten.
    fn error(&self) -> String {
        self.write_index();
        Checkpoint::open(self.dir.path()).unwrap_err().to_string()
    }
}

fn save(path: &Path, tensors: &[(String, Tensor)]) {
    match path.extension().is_some_and(|e| e == "bin") {
        true => weights::save_torch(path, None, tensors).unwrap(),
        false => weights::save_safetensors(path, tensors, &BTreeMap::new()).unwrap(),
    }
}

#[test]
fn shards_read_as_one_file_by_their_index_or_their_folder() {
    for layout in &LAYOUTS {
        let sharded = Sharded::new(layout);
        // The folder's other files, and shards without an index's help, are no hindrance.
        std::fs::write(sharded.path("config.json"), "{}").unwrap();
        for path in [sharded.dir.path().to_owned(), sharded.path(layout.index)] {
            let checkpoint = Checkpoint::open(&path).unwrap();
            assert_eq!(checkpoint.format(), layout.format);
            let source = checkpoint.source(Want::Auto).unwrap();
            assert_eq!(source.names().len(), tensors().len());
            for (name, expected) in tensors() {
                let found = source.read(&name, Device::Cpu).unwrap();
                assert_eq!((found.kind(), &found), (expected.kind(), &expected), "{name}");
            }
        }
    }
}

#[test]
fn a_shard_that_is_not_there_or_cut_off_is_named() {
    for layout in &LAYOUTS {
        let sharded = Sharded::new(layout);
        let whole = std::fs::read(sharded.path(layout.second)).unwrap();
        std::fs::write(sharded.path(layout.second), &whole[..whole.len() / 2]).unwrap();
        let error = sharded.error();
        assert!(error.contains(layout.second) && error.contains("damaged"), "{error}");
        std::fs::remove_file(sharded.path(layout.second)).unwrap();
        let error = sharded.error();
        assert!(error.contains("cannot read") && error.contains(layout.second), "{error}");
    }
}

#[test]
fn an_index_and_its_shards_must_agree() {
    for layout in &LAYOUTS {
        // A tensor that no shard has, and one that another shard has.
        let mut sharded = Sharded::new(layout);
        sharded.map.insert("ghost".into(), layout.first.into());
        let error = sharded.error();
        let expected = format!("the index says that `{}` holds `ghost`, and it does not", layout.first);
        assert!(error.contains(layout.index) && error.contains(&expected), "{error}");
        let mut sharded = Sharded::new(layout);
        sharded.map.insert("scalar".into(), layout.first.into());
        let error = sharded.error();
        assert!(error.contains(&format!("`{}` holds `scalar`, and it does not", layout.first)), "{error}");

        // A tensor in two shards: which one counts is not for us to guess.
        let sharded = Sharded::new(layout);
        save(&sharded.path(layout.second), &tensors()[1..]);
        let error = sharded.error();
        let expected =
            format!("`encoder.a` lies in two of its files, `{}` and `{}`", layout.first, layout.second);
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn an_index_names_files_beside_it_and_nothing_else() {
    let mut sharded = Sharded::new(&LAYOUTS[1]);
    for file in ["../x.bin", "/etc/passwd", ""] {
        sharded.map.insert("scalar".into(), file.into());
        assert!(sharded.error().contains("beside the index"), "{file}");
    }
    let index = sharded.path(sharded.layout.index);
    for (text, expected) in [
        ("{\"weight_map\": {\"a\": 1}}", "the file of `a` is not a string"),
        ("{\"weight_map\"", "not valid JSON"),
        ("{\"a\": 1}", "without the `weight_map`"),
        (&format!("{{\"weight_map\": {}", "[".repeat(200_000)), "not valid JSON: recursion limit"),
    ] {
        std::fs::write(&index, text).unwrap();
        let error = Checkpoint::open(&index).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
