//! Every reader of files as a function of bytes. A reader may reject them; it must not panic, hang
//! or exhaust memory.

use std::path::Path;

use base::npz::Npz;
use data::text_features::TextFeatureShards;
use tch::Device;
use weights::Checkpoint;

/// A reader, and the name that files for it have.
pub struct Reader {
    /// Its name, which is its corpus's folder too.
    pub name: &'static str,
    /// The file's name; readers of folders need it.
    pub file: &'static str,
    /// Reads the file; whether it was accepted.
    pub read: fn(&Path) -> bool,
}

/// All of them.
pub const READERS: [Reader; 15] = [
    Reader { name: "jpeg", file: "x.jpg", read: image },
    Reader { name: "png", file: "x.png", read: image },
    Reader { name: "gif", file: "x.gif", read: image },
    Reader { name: "webp", file: "x.webp", read: image },
    Reader { name: "bmp", file: "x.bmp", read: image },
    Reader { name: "tar", file: "x.tar", read: set },
    Reader { name: "list", file: "x.csv", read: list },
    Reader { name: "classes", file: "classes.tsv", read: classes },
    Reader { name: "npz", file: "x.npz", read: npz },
    Reader { name: "npy", file: "0.npy", read: npy },
    Reader { name: "codes", file: "codes-00000-of-00001.safetensors", read: codes },
    Reader { name: "features", file: "text-00000-of-00001.safetensors", read: features },
    Reader { name: "torch", file: "x.pt", read: checkpoint },
    Reader { name: "safetensors", file: "x.safetensors", read: checkpoint },
    Reader { name: "yaml", file: "x.yaml", read: yaml },
];

fn image(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| data::decode("x", &bytes).is_ok())
}

/// A data set: its labels, and some of its images.
fn set(path: &Path) -> bool {
    let Ok(set) = data::open(path) else { return false };
    let looked_at = set.len().min(3);
    set.left_out().len() < usize::MAX
        && (0..looked_at).all(|i| {
            let (_, _) = (set.key(i), set.target(i));
            set.get(i).is_ok()
        })
}

fn list(path: &Path) -> bool {
    let prompts = data::read_prompts(path).is_ok();
    data::read_list(path).is_ok() | prompts
}

fn classes(path: &Path) -> bool {
    data::ClassTable::read(path).is_ok()
}

fn npz(path: &Path) -> bool {
    set(path);
    let Ok(mut npz) = Npz::open(path) else { return false };
    let names: Vec<String> = npz.arrays().iter().map(|a| a.name.clone()).collect();
    names.iter().all(|name| {
        let rows = npz.rows(name).is_ok_and(|rows| rows.is_empty() || rows.bytes(0).is_ok());
        npz.read(name).is_ok() | npz.text(name).is_ok() | rows
    })
}

fn npy(path: &Path) -> bool {
    base::npz::read_npy_integers(path).is_ok()
}

/// The index of one shard is beside it.
fn codes(path: &Path) -> bool {
    const INDEX: &str = r#"{"tokenizer":{"fingerprint":"a","codebook_size":100,"num_tokens":4},"views":["center"],
        "precision":"fp32","records":2,"skipped":0,"data":"x","shards":[{"file":"codes-00000-of-00001.safetensors",
        "records":2}]}"#;
    let root = with_index(path, INDEX);
    data::open_codes(&[root]).is_ok_and(|codes| (0..codes.len()).all(|i| codes.read(i, 0).is_ok()))
}

fn features(path: &Path) -> bool {
    const INDEX: &str = r#"{"encoder":{"fingerprint":"a","width":2,"length":5,"clean":true,"precision":"fp32"},"captions":2,
        "data":"x","shards":[{"file":"text-00000-of-00001.safetensors","records":2}]}"#;
    let root = with_index(path, INDEX);
    TextFeatureShards::open(root).is_ok_and(|texts| ["a", "bc"].iter().all(|c| texts.get(c).is_ok()))
}

fn with_index<'a>(path: &'a Path, index: &str) -> &'a Path {
    let root = path.parent().unwrap_or(Path::new("."));
    let index_path = root.join("index.json");
    if !index_path.exists() {
        let _ = std::fs::write(index_path, index);
    }
    root
}

fn checkpoint(path: &Path) -> bool {
    const SMALL: u64 = 1 << 20;
    let Ok(file) = Checkpoint::open(path) else { return false };
    file.sections().iter().all(|section| {
        let Ok(source) = file.section(section.name.as_deref()) else { return false };
        source.names().into_iter().all(|name| {
            let small = source.info(name).is_some_and(|info| info.bytes < SMALL);
            !small || source.read(name, Device::Cpu).is_ok()
        })
    })
}

fn yaml(path: &Path) -> bool {
    base::config::Document::read(path).is_ok_and(|document| document.to_json().is_ok())
}
