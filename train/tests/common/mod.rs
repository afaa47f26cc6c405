//! A tiny data set, tiny models, and ways to look at a finished run.
#![allow(dead_code)] // each test file uses its own part

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use base::Progress;
use base::config::Document;
use data::codes::{CodePlan, CodeWriter, TokenizerId};
use dist::World;
use tch::{Device, Tensor};
use tokenizer::Tokenizer;
use train::tasks::{ArRecipe, ArTask, TokenizerRecipe, TokenizerTask};
use train::{Outcome, Run, Task, TrainCheckpoint};

/// libtorch's generator belongs to the whole process, so tests that train take turns.
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Twelve 20×18 images of smooth colours in two class folders.
pub fn images(dir: &Path) -> PathBuf {
    let root = dir.join("images");
    for i in 0..12u32 {
        let class = root.join(["n02099601", "n01443537"][i as usize % 2]);
        std::fs::create_dir_all(&class).unwrap();
        let pixel =
            |x: u32, y: u32| image::Rgb([(13 * x + 40 * i) as u8, (11 * y) as u8, (9 * (x + y)) as u8]);
        image::RgbImage::from_fn(20, 18, pixel).save(class.join(format!("{i}.png"))).unwrap();
    }
    root
}

const TOKENIZER: &str = "
seed: 5
model:
  type: gigatok
  image_size: 16
  latent: { type: sequence, num_tokens: 16, query_init: multi_level }
  cnn:
    channels: 8
    norm_groups: 4
    encoder_multipliers: [1, 1, 1]
    decoder_multipliers: [1, 1, 1]
    res_blocks: 1
    z_channels: 8
    attention: false
    adaptive_norm: true
    upsample: depth_to_space
  encoder: { width: 16, layers: 1, heads: 2 }
  decoder: { width: 16, layers: 1, heads: 2 }
  alignment: { layer: 1, width: 384 }
  quantizer: { codebook_size: 32, code_dim: 4, l2_normalize: true, gradient: rotation, commitment: 0.25, entropy: 0.01 }
data: { train: null, validation: null, crop: { type: random, min_fraction: 0.8 }, flip: true, workers: 2, max_corrupt: 0 }
losses:
  l2: 1.0
  l1: 0.5
  auxiliary: { end_step: 4, feature_weight: 1.0, feature_distance: mse, direct: true }
  adversarial: { weight: 0.1, start_step: 3, discriminator: { channels: 4, layers: 2 } }
optimization:
  steps: 7
  batch_size: 4
  lr: 1.0e-3
  warmup: 2
  schedule: { type: cosine, end_lr: 1.0e-5 }
  adamw: { betas: [0.9, 0.95], weight_decay: 1.0e-4, decay: all }
  clip: 10.0
  ema: 0.9
  precision: fp32
every: { log: 1, validate: 0, save: 2 }
";

const AR: &str = "
seed: 6
model:
  type: gpt
  width: 16
  layers: 2
  heads: 2
  vocab_size: null
  num_tokens: null
  position: learned
  conditioning: { type: class, num_classes: 1000 }
data:
  images: { train: null, validation: null, crop: { type: random, min_fraction: 0.8 }, flip: true, workers: 2, max_corrupt: 0 }
optimization:
  steps: 7
  batch_size: 4
  lr: 1.0e-2
  warmup: 2
  schedule: { type: wsd, decay_fraction: 0.3 }
  adamw: { betas: [0.9, 0.95], weight_decay: 0.05, decay: matrices }
  clip: 1.0
  ema: 0.9
  precision: fp32
every: { log: 1, validate: 0, save: 2 }
";

fn document(text: &str) -> Document {
    Document::parse("test recipe", text).unwrap()
}

pub fn tokenizer_task(images: &Path, changes: &[&str]) -> TokenizerTask {
    try_tokenizer_task(images, changes).unwrap()
}

pub fn try_tokenizer_task(images: &Path, changes: &[&str]) -> train::Result<TokenizerTask> {
    let mut all = vec![format!("data.train={}", images.display())];
    all.extend(changes.iter().map(|c| (*c).to_owned()));
    let recipe = TokenizerRecipe::from_document(&document(TOKENIZER), &all)?;
    TokenizerTask::new(recipe, Device::Cpu)
}

pub fn ar_recipe(changes: &[&str], tokenizer: &tokenizer::Loaded) -> train::Result<ArRecipe> {
    let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
    ArRecipe::from_document(document(AR), &changes, tokenizer.model.spec())
}

/// A recipe of the repository for another tokenizer.
pub fn ar_recipe_from(
    document: &Document,
    changes: &[String],
    tokenizer: &tokenizer::Loaded,
) -> train::Result<ArRecipe> {
    let mut document = document.clone();
    let sizes: Vec<String> = changes.iter().filter(|c| c.ends_with("=null")).cloned().collect();
    document.set(&sizes)?;
    let others: Vec<String> = changes.iter().filter(|c| !c.ends_with("=null")).cloned().collect();
    ArRecipe::from_document(document, &others, tokenizer.model.spec())
}

pub fn open_tokenizer(dir: &Path) -> tokenizer::Loaded {
    tokenizer::open_dir(dir, Device::Cpu, base::Precision::Fp32).unwrap()
}

pub fn ar_task(tokenizer_dir: &Path, changes: &[&str]) -> ArTask {
    let tokenizer = open_tokenizer(tokenizer_dir);
    let recipe = ar_recipe(changes, &tokenizer).unwrap();
    ArTask::new(recipe, tokenizer, Device::Cpu).unwrap()
}

/// Requests a stop after this many steps.
pub struct StopAfter<'a>(pub u64, pub &'a AtomicBool);

impl Progress for StopAfter<'_> {
    fn start(&mut self, _what: &str, _total: Option<u64>) {}
    fn advance(&mut self, n: u64) {
        self.0 = self.0.saturating_sub(n);
        if self.0 == 0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
    fn message(&mut self, _text: &str) {}
    fn warn(&mut self, _text: &str) {}
    fn finish(&mut self) {}
}

/// Trains, from the newest state in `dir` if there is one, at most `steps` steps.
pub fn go<T: Task>(task: T, dir: &Path, steps: u64) -> train::Result<Outcome> {
    go_with(task, dir, steps, &World::default())
}

/// [`go`] as one of several processes.
pub fn go_with<T: Task>(mut task: T, dir: &Path, steps: u64, world: &World) -> train::Result<Outcome> {
    let stop = AtomicBool::new(false);
    let saved = TrainCheckpoint::newest(dir).ok().map(|s| s.0);
    let run = Run {
        dir,
        resume: saved.as_ref(),
        stop: &stop,
        program: "test",
        device: "CPU",
        tf32: false,
        world,
        peak: Some(1e9),
    };
    train::train(&mut task, &run, &mut StopAfter(steps, &stop))
}

/// Every tensor of a file, as name, shape and bytes.
pub fn contents(file: &Path) -> Vec<(String, Vec<i64>, Vec<u8>)> {
    let source = weights::Checkpoint::open(file).unwrap().section(None).unwrap();
    let one = |name: &str| {
        let info = source.info(name).unwrap();
        (name.to_owned(), info.shape, source.bytes(name).unwrap().into_owned())
    };
    source.names().into_iter().map(one).collect()
}

/// The newest state file of a run.
pub fn newest_state(dir: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir.join("state")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    files.pop().unwrap()
}

/// A scalar of every logged step that has it.
pub fn logged(dir: &Path, key: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(dir.join("log.jsonl")).unwrap();
    let lines = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    lines.filter_map(|l| l[key].as_f64()).collect()
}

/// The largest difference of two runs' weights.
pub fn distance(a: &Path, b: &Path) -> f64 {
    let read = |dir: &Path| {
        let source =
            weights::Checkpoint::open(&dir.join("weights.safetensors")).unwrap().section(None).unwrap();
        let all: Vec<Tensor> = source
            .names()
            .iter()
            .map(|n| source.read(n, Device::Cpu).unwrap().to_kind(tch::Kind::Double))
            .collect();
        all
    };
    let pairs = read(a).into_iter().zip(read(b));
    pairs.map(|(x, y)| (x - y).abs().max().double_value(&[])).fold(0.0, f64::max)
}

/// Ten records of two views with sixteen codes each, said to be of a tokenizer.
pub fn store_codes(folder: &Path, fingerprint: &str) {
    let tokenizer = TokenizerId { fingerprint: fingerprint.into(), codebook_size: 32, num_tokens: 16 };
    let plan = CodePlan {
        tokenizer,
        views: vec!["center".into(), "mirrored".into()],
        records: 10,
        shard_size: 10,
        precision: "fp32".into(),
        data_fingerprint: "test".into(),
        data: "test".into(),
    };
    let code = |i: u64, j: u64| base::rng::below(9, &[i, j], 32) as i64;
    let writer = CodeWriter::create(folder, plan).unwrap();
    let mut shard = writer.begin(0);
    for i in 0..10 {
        let both_views: Vec<i64> = (0..32).map(|j| code(i, j)).collect();
        writer.push(&mut shard, &both_views, 207, "").unwrap();
    }
    writer.write(shard).unwrap();
    writer.finish(&[]).unwrap();
}
