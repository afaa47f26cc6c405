//! Small transformers and their inputs, for the tests.

use ar_model::{ArConfig, AutoregressiveModel, Conditioning, Gpt};
use base::config::Document;
use base::testing::{recipe_integers, recipe_tensor};
use base::{Build, Vars};
use tch::{Device, Kind, Tensor};

pub const CLASS: &str = "{ type: class, num_classes: 10 }";
pub const TEXT: &str = "{ type: text, length: 5, feature_width: 12 }";

pub fn config(position: &str, conditioning: &str, extra: &str) -> ArConfig {
    let mut text =
        format!("type: gpt\nnum_tokens: 16\nposition: {position}\nconditioning: {conditioning}\n{extra}\n");
    for (key, usual) in [("width", 32), ("layers", 3), ("heads", 4), ("vocab_size", 40)] {
        if !text.contains(&format!("\n{key}:")) {
            text += &format!("{key}: {usual}\n");
        }
    }
    ArConfig::from_document(&Document::parse("test", &text).unwrap()).unwrap()
}

/// Every variable by the recipe, since some start at zero.
pub fn build(config: &ArConfig) -> Gpt {
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    let gpt = Gpt::new(&vars.root(), config).unwrap();
    let _guard = tch::no_grad_guard();
    for mut var in vars.all() {
        let shape = var.tensor.size();
        var.tensor.copy_(&recipe_tensor(&var.name, 4, &shape, -0.4, 0.4));
    }
    gpt
}

pub fn condition(config: &ArConfig, batch: i64) -> Conditioning {
    if config.conditioning.prefix_len() == 1 {
        return Conditioning::Class(recipe_integers("classes", 2, &[batch], 10));
    }
    // Left-padded captions of one, two, … tokens.
    let lengths = Tensor::arange_start(1, batch + 1, (Kind::Int64, Device::Cpu)).view([batch, 1]);
    let mask = Tensor::arange(5, (Kind::Int64, Device::Cpu)).ge_tensor(&(-lengths + 5));
    let features = recipe_tensor("features", 2, &[batch, 5, 12], -1.0, 1.0) * mask.unsqueeze(2);
    Conditioning::Text { features, mask }
}

/// Teacher-forced logits, and those of prefill and steps.
pub fn both_ways<M: AutoregressiveModel>(gpt: &M, cond: &Conditioning, codes: &Tensor) -> [Tensor; 2] {
    let mut cache = gpt.new_cache(codes.size()[0]);
    let mut steps = vec![gpt.prefill(cond, &mut cache)];
    for t in 0..15 {
        steps.push(gpt.decode_step(&codes.narrow(1, t, 1), gpt.spec().prefix_len + t, &mut cache));
    }
    [gpt.logits(cond, codes), Tensor::stack(&steps, 1)]
}
