//! What end-to-end tests share: a place to run in, and models small enough to be made there: random weights in the
//! form that training writes.
#![allow(dead_code, unused_imports)] // no test uses all of it

mod place;

use std::path::Path;

use ar_model::{ArConfig, Gpt};
use base::{Build, Vars};
use tch::{Device, Kind};
use tokenizer::TokenizerConfig;

pub use place::{Place, pixels, stderr};

/// What a test's model is made of.
#[derive(Debug, Clone, Copy)]
pub struct Tiny {
    /// Entries of the codebook, and the transformer's vocabulary.
    pub codebook_size: i64,
    /// The transformer's vocabulary, where it is to differ.
    pub vocab_size: i64,
    /// Seed of the weights.
    pub seed: i64,
}

impl Default for Tiny {
    fn default() -> Self {
        Tiny { codebook_size: 64, vocab_size: 64, seed: 1 }
    }
}

/// Writes a model directory: images of 16 × 16 pixels, 16 codes, the classes 0, 207 and 281.
pub fn write_model(dir: &Path, tiny: Tiny) {
    let Tiny { codebook_size, vocab_size, seed } = tiny;
    tch::manual_seed(seed);
    let inside = dir.join("tokenizer");
    std::fs::create_dir_all(&inside).unwrap();
    let tokenizer = format!(
        "type: gigatok\nimage_size: 16\nlatent: {{ type: sequence, num_tokens: 16, query_init: multi_level }}\n\
         cnn: {{ channels: 32, encoder_multipliers: [1, 1, 1], decoder_multipliers: [1, 1, 1], res_blocks: 1, \
         z_channels: 32, attention: false, adaptive_norm: true, upsample: depth_to_space }}\n\
         encoder: {{ width: 32, layers: 1, heads: 2 }}\ndecoder: {{ width: 32, layers: 1, heads: 2 }}\n\
         quantizer: {{ codebook_size: {codebook_size}, code_dim: 8, l2_normalize: true, \
         gradient: rotation, commitment: 0.25 }}\n"
    );
    std::fs::write(inside.join("config.yaml"), tokenizer).unwrap();
    let config = TokenizerConfig::read(&inside.join("config.yaml")).unwrap();
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    tokenizer::Model::new(&vars.root(), &config).unwrap();
    save(&inside, &vars);

    let transformer = format!(
        "type: gpt\nwidth: 32\nlayers: 2\nheads: 4\nvocab_size: {vocab_size}\nnum_tokens: 16\nposition: learned\n\
         conditioning: {{ type: class, num_classes: 300 }}\n"
    );
    std::fs::write(dir.join("config.yaml"), transformer).unwrap();
    let config = ArConfig::read(&dir.join("config.yaml")).unwrap();
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    Gpt::new(&vars.root(), &config).unwrap();
    for mut var in vars.all() {
        // A fresh output layer is zero, and fresh weights give almost equal logits; these tell classes and
        // positions apart.
        let _ = tch::no_grad(|| match var.name.as_str() {
            "output.weight" => var.tensor.normal_(0.0, 0.5),
            _ => var.tensor.g_mul_scalar_(8.0),
        });
    }
    save(dir, &vars);
    let all = data::ClassTable::imagenet();
    let classes: Vec<_> = [0, 207, 281].iter().map(|&i| all.by_index(i).unwrap().clone()).collect();
    std::fs::write(dir.join("classes.tsv"), data::to_tsv(&classes)).unwrap();
}

/// Writes the directory of a VQGAN tokenizer with 2 x 2 pixels a code, for square images of any even side.
pub fn write_vqgan(dir: &Path) {
    tch::manual_seed(3);
    std::fs::create_dir_all(dir).unwrap();
    let config = "type: llamagen_vq\nimage_size: 16\ncnn: { channels: 32, encoder_multipliers: [1, 1], \
                  decoder_multipliers: [1, 1], res_blocks: 1, z_channels: 32, attention: true, adaptive_norm: false, \
                  upsample: nearest }\nquantizer: { codebook_size: 64, code_dim: 8, l2_normalize: true, \
                  gradient: straight_through, commitment: 0.25 }\n";
    std::fs::write(dir.join("config.yaml"), config).unwrap();
    let config = TokenizerConfig::read(&dir.join("config.yaml")).unwrap();
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    tokenizer::Model::new(&vars.root(), &config).unwrap();
    save(dir, &vars);
}

fn save(dir: &Path, vars: &Vars) {
    let path = dir.join("weights.safetensors");
    weights::save_safetensors(&path, &weights::named_tensors(vars), &Default::default()).unwrap();
}
