//! A tokenizer of a released size, with weights by recipe.

use std::path::Path;

use anyhow::Result;
use base::{Build, Codes, ImagesU8, Vars};
use tch::{Device, Kind, Tensor};
use tokenizer::{Model, Tokenizer, TokenizerConfig};

use super::tokenizer::{as_map, compare_codes, distances, distinct_count, gaps};
use crate::check::{Check, Near, Rule};
use crate::golden::Golden;
use crate::recipe::Recipe;
use crate::run::number_after;

fn open(golden: &Golden) -> Result<(TokenizerConfig, Model, Vars)> {
    let official = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official").join(golden.text("yaml")?);
    let config = TokenizerConfig::read(&official)?;
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Empty);
    let mut model = Model::new(&vars.root(), &config)?;
    let table = golden.get("recipe_table");
    let mut recipe = Recipe::new(&table["seed"], &table["tensors"], "")?;
    for name in golden.tensor_names().into_iter().filter(|n| vars.get(n).is_some()) {
        recipe.give(name, &golden.tensor(name)?)?; // "replaces the recipe's value"
    }
    recipe.load(&vars, &["quantize.codebook_used"])?;
    model.pack(&vars); // as opened for use
    Ok((config, model, vars))
}

/// The whole golden.
pub fn check(check: &mut Check) -> Result<()> {
    let golden = check.golden;
    let (config, model, vars) = open(golden)?;
    for name in golden.tensor_names().into_iter().filter(|n| vars.get(n).is_some()) {
        drop(check.input(name)?);
    }
    let (found, expected) = (vars.num_parameters(), golden.integer("params")?);
    check.must("params", found == expected, format!("{found}, expected {expected}"));

    let image = ImagesU8::new(check.input("image_u8")?.unsqueeze(0))?.to_float();
    let z = model.features(&image)?;
    let shape = golden.tensor("pre_quant")?.size();
    check.compare("pre_quant", Rule::Values, || as_map(&z, &shape))?;
    let distances = distances(&config, &vars, &z)?;
    compare_codes(check, model.encode(&image)?.tensor(), &distances)?;
    check.compare("argmin_gap", Rule::Within(1e-4), || gaps(&distances))?;

    let codes = Codes::new(check.input("indices")?.unsqueeze(0))?;
    check.scalar("distinct_codes", Near::Equal, distinct_count(codes.tensor()))?;
    let decoded = model.decode(&codes)?.into_tensor().squeeze_dim(0); // (3, H, W)
    check.compare("decoded_crop", Rule::Bounded, || crop(golden, &decoded))?;
    let blocks = golden.tensor("decoded_mean16")?.size()[1];
    let block = config.image_size() / blocks;
    check.compare("decoded_mean16", Rule::Bounded, || {
        decoded.avg_pool2d([block, block], [block, block], [0, 0], false, true, None)
    })
}

/// "rows and columns A..B", both included.
fn crop(golden: &Golden, decoded: &Tensor) -> Tensor {
    let from =
        number_after(golden.meaning("decoded_crop"), "rows and columns").expect("where it was cut") as i64;
    let side = golden.tensor("decoded_crop").expect("listed").size()[1];
    decoded.narrow(1, from, side).narrow(2, from, side)
}
