//! Models small enough to be created by a test, with random weights in the format of training.

use std::path::Path;

use ar_model::{ArConfig, Gpt};
use backbones::text_encoder::{T5Config, T5Encoder, TEXT_FILE, TEXT_FOLDER, TEXT_PREFIX, learn_tokenizer};
use base::{Build, Vars};
use tch::{Device, Kind};
use tokenizer::TokenizerConfig;

/// Sizes and parts of a test's model.
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

    let vars = transformer(dir, vocab_size, "{ type: class, num_classes: 300 }");
    save(dir, &vars);
    let all = data::ClassTable::imagenet();
    let classes: Vec<_> = [0, 207, 281].iter().map(|&i| all.by_index(i).unwrap().clone()).collect();
    std::fs::write(dir.join("classes.tsv"), data::to_tsv(&classes)).unwrap();
}

/// Writes a directory of a model that draws prompts of up to 12 tokens, its text encoder inside.
pub fn write_text_model(dir: &Path) {
    let vars = text_transformer(dir);
    T5Encoder::new(&(&vars.root() / TEXT_PREFIX), &t5_config());
    save(dir, &vars);
    write_t5_files(&dir.join(TEXT_FOLDER));
    std::fs::write(dir.join(TEXT_FILE), "clean: true\nencoder: { type: inside }\n").unwrap();
}

/// The same without an encoder, which is to be named beside it, as with published models.
pub fn write_text_model_without_encoder(dir: &Path) {
    save(dir, &text_transformer(dir));
}

fn text_transformer(dir: &Path) -> Vars {
    write_model(dir, Tiny::default());
    std::fs::remove_file(dir.join("classes.tsv")).unwrap();
    transformer(dir, 64, "{ type: text, length: 12, feature_width: 12 }")
}

/// A text encoder of width 12 with random weights, in Hugging Face's layout: `pytorch_model.bin` in
/// two shards.
pub fn write_text_encoder(dir: &Path) {
    write_t5_files(dir);
    tch::manual_seed(4);
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    T5Encoder::new(&vars.root(), &t5_config());
    let tensors = weights::named_tensors(&vars);
    let mut places = serde_json::Map::new();
    let (first, second) = tensors.split_at(tensors.len() / 2);
    for (i, part) in [first, second].into_iter().enumerate() {
        let file = format!("pytorch_model-{:05}-of-00002.bin", i + 1);
        weights::save_torch(&dir.join(&file), None, part).unwrap();
        places.extend(part.iter().map(|(name, _)| (name.clone(), file.clone().into())));
    }
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": places });
    std::fs::write(dir.join("pytorch_model.bin.index.json"), index.to_string()).unwrap();
}

fn t5_config() -> T5Config {
    let small = T5Config::named("small").unwrap();
    T5Config { vocab_size: 280, d_model: 12, d_kv: 4, d_ff: 16, num_layers: 1, num_heads: 2, ..small }
}

/// Everything of a text encoder but its weights.
fn write_t5_files(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let words = ["a photo of a red panda".to_owned(), "a dog".to_owned()];
    std::fs::write(folder.join("tokenizer.json"), learn_tokenizer(words.into_iter(), 280).unwrap()).unwrap();
    std::fs::write(folder.join("config.json"), serde_json::to_string(&t5_config()).unwrap()).unwrap();
}

/// Writes the configuration of a transformer, and draws weights for which conditions and positions
/// differ.
fn transformer(dir: &Path, vocab_size: i64, conditioning: &str) -> Vars {
    let transformer = format!(
        "type: gpt\nwidth: 32\nlayers: 2\nheads: 4\nvocab_size: {vocab_size}\nnum_tokens: 16\nposition: learned\n\
         conditioning: {conditioning}\n"
    );
    std::fs::write(dir.join("config.yaml"), transformer).unwrap();
    let config = ArConfig::read(&dir.join("config.yaml")).unwrap();
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    Gpt::new(&vars.root(), &config).unwrap();
    for mut var in vars.all() {
        // A fresh output layer is zero, and fresh weights give almost equal logits; with these,
        // classes and positions differ.
        let _ = tch::no_grad(|| match var.name.as_str() {
            "output.weight" => var.tensor.normal_(0.0, 0.5),
            _ => var.tensor.g_mul_scalar_(8.0),
        });
    }
    vars
}

/// Writes the directory of a VQGAN tokenizer with 2 x 2 pixels a code, for square images of any
/// even side.
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
