//! Models small enough to be created by a test, with random weights in the format of training.

use std::path::Path;

use ar_model::{ArConfig, Gpt};
use backbones::text_encoder::{T5Config, T5Encoder, TEXT_FILE, TEXT_FOLDER, TEXT_PREFIX, learn_tokenizer};
use base::{Build, Precision, Vars};
use generate::{ModelPair, ModelsConfig};
use settings::{GpuOptions, ModelChoice};
use tch::{Device, Kind};
use tokenizer::TokenizerConfig;

/// Images of 16 × 16 pixels, 16 codes, the classes 0 to 9.
pub const CLASS: &str = "position: learned\nconditioning: { type: class, num_classes: 10 }\n";
/// The same without guidance.
pub const WITHOUT_NULL: &str = "position: learned\nconditioning: { type: class, num_classes: 10, null_class: false }\n\
     dropout: { condition: 0 }\n";
/// Prompts of up to 12 tokens.
pub const TEXT: &str = "position: rope_2d\nconditioning: { type: text, length: 12, feature_width: 12 }\n";

/// Writes a model directory.
pub fn write_model(dir: &Path, options: &str) {
    tch::manual_seed(1);
    write_tokenizer(&dir.join("tokenizer"));
    let text =
        format!("type: gpt\nwidth: 32\nlayers: 2\nheads: 4\nvocab_size: 64\nnum_tokens: 16\n{options}");
    std::fs::write(dir.join("config.yaml"), text).unwrap();
    let config = ArConfig::read(&dir.join("config.yaml")).unwrap();
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    Gpt::new(&vars.root(), &config).unwrap();
    for mut var in vars.all() {
        // Weights for which conditions and positions differ.
        let _ = tch::no_grad(|| match var.name.as_str() {
            "output.weight" => var.tensor.normal_(0.0, 0.5),
            _ => var.tensor.g_mul_scalar_(8.0),
        });
    }
    if options == TEXT {
        T5Encoder::new(&(&vars.root() / TEXT_PREFIX), &t5());
        write_text_encoder(dir);
    }
    save(dir, &vars);
}

fn write_tokenizer(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let text = "type: gigatok\nimage_size: 16\n\
        latent: { type: sequence, num_tokens: 16, query_init: multi_level }\n\
        cnn: { channels: 32, encoder_multipliers: [1, 1, 1], decoder_multipliers: [1, 1, 1], res_blocks: 1, \
        z_channels: 32, attention: false, adaptive_norm: true, upsample: depth_to_space }\n\
        encoder: { width: 32, layers: 1, heads: 2 }\ndecoder: { width: 32, layers: 1, heads: 2 }\n\
        quantizer: { codebook_size: 64, code_dim: 8, l2_normalize: true, gradient: rotation, commitment: 0.25 }\n";
    std::fs::write(dir.join("config.yaml"), text).unwrap();
    let config = TokenizerConfig::read(&dir.join("config.yaml")).unwrap();
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    tokenizer::Model::new(&vars.root(), &config).unwrap();
    save(dir, &vars);
}

fn t5() -> T5Config {
    let small = T5Config::named("small").unwrap();
    T5Config { vocab_size: 280, d_model: 12, d_kv: 4, d_ff: 16, num_layers: 1, num_heads: 2, ..small }
}

fn write_text_encoder(dir: &Path) {
    let folder = dir.join(TEXT_FOLDER);
    std::fs::create_dir_all(&folder).unwrap();
    let words = ["a photo of a red panda".to_owned(), "a dog".to_owned()];
    std::fs::write(folder.join("tokenizer.json"), learn_tokenizer(words.into_iter(), 280).unwrap()).unwrap();
    std::fs::write(folder.join("config.json"), serde_json::to_string(&t5()).unwrap()).unwrap();
    std::fs::write(dir.join(TEXT_FILE), "clean: true\nencoder: { type: inside }\n").unwrap();
}

fn save(dir: &Path, vars: &Vars) {
    let path = dir.join("weights.safetensors");
    weights::save_safetensors(&path, &weights::named_tensors(vars), &Default::default()).unwrap();
}

/// The model of a directory, on the CPU.
pub fn models(dir: &Path, precision: Precision) -> ModelsConfig {
    let choice = ModelChoice::named(dir.display().to_string());
    ModelsConfig {
        pair: ModelPair::find(&choice, &ModelChoice::default()).unwrap(),
        text: None,
        device: Device::Cpu,
        precision,
        tokenizer_precision: Precision::Fp32,
        gpu: GpuOptions::default(),
    }
}
