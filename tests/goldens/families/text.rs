//! The text side of text to image: encoder, left padding, tokenizer, cleaning of captions.

use anyhow::{Context, Result, ensure};
use backbones::text_encoder::{T5Config, T5Encoder, TextTokenizer, clean_caption, clean_once, left_pad};
use tch::{Device, Kind};

use crate::check::{Check, Rule};

/// Every block of an encoder, and the condition that the transformer gets.
pub fn encoder(check: &mut Check) -> Result<()> {
    let config: T5Config = serde_json::from_value(check.golden.config("t5").clone())?;
    config.check()?;
    let weights = check.golden.checkpoint()?;
    let (encoder, _) = T5Encoder::open(&config, &weights, None, Device::Cpu, Kind::Float)?;
    let (ids, mask) = (check.input("input_ids")?, check.input("attention_mask")?);
    let layers = tch::no_grad(|| encoder.layers(&ids, &mask));
    for (i, layer) in layers.iter().enumerate().take(layers.len() - 1) {
        check.compare(&format!("hidden.{i}"), Rule::Values, || layer.shallow_clone())?;
    }
    let output = layers.last().context("an encoder has an output")?;
    check.compare("last_hidden_state", Rule::Bounded, || output.shallow_clone())?;
    let padded = left_pad(output, &mask);
    check.compare("left_padded", Rule::Bounded, || padded.features.shallow_clone())?;
    check.compare("left_padded_mask", Rule::Equal, || padded.mask.to_kind(Kind::Int64))
}

/// Ids and masks of texts.
pub fn tokenizer(check: &mut Check) -> Result<()> {
    let texts: Vec<String> = serde_json::from_value(check.golden.get("texts").clone())?;
    let file = check.golden.path().with_extension("tokenizer.json");
    let tokens = TextTokenizer::open(&file, check.golden.integer("length")?)?.encode(&texts)?;
    check.compare("input_ids", Rule::Equal, || tokens.ids)?;
    check.compare("attention_mask", Rule::Equal, || tokens.mask)
}

/// Captions before and after cleaning.
pub fn cleaning(check: &mut Check) -> Result<()> {
    let cases = check.golden.get("cases").as_array().context("no cases")?;
    ensure!(!cases.is_empty(), "no cases");
    if check.golden.has("count") {
        let count = check.input("count")?.sum(Kind::Int64).int64_value(&[]);
        check.must("count", count == cases.len() as i64, format!("{count}, and {} cases", cases.len()));
    }
    for case in cases {
        let text = |key: &str| case[key].as_str().with_context(|| format!("a case without `{key}`"));
        let (input, once, twice) = (text("input")?, text("once")?, text("twice")?);
        for (what, found, expected) in
            [("once", clean_once(input)?, once), ("twice", clean_caption(input)?, twice)]
        {
            let good = found == expected;
            check.must("caption", good, format!("{input:?}, {what}: {found:?}, expected {expected:?}"));
        }
    }
    Ok(())
}
