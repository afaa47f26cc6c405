//! SentencePiece's `spiece.model` as a `tokenizer.json`, the way Hugging Face converts T5's: a
//! Unigram model behind the normalisation that the file carries ready-made
//! (`precompiled_charsmap`), 100 sentinels `<extra_id_N>` after the pieces, and `</s>` at the end
//! of every text.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost::Message;
use serde_json::{Value, json};

/// The parts of SentencePiece's `ModelProto` that matter.
#[derive(Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
}

#[derive(Message)]
struct Trainer {
    /// 1 is Unigram, which is also the default.
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
}

#[derive(Message)]
struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
}

const UNIGRAM: i32 = 1;
const SENTINELS: usize = 100;
const PAD: &str = "<pad>";
const END: &str = "</s>";
const UNKNOWN: &str = "<unk>";

/// The text of the equivalent `tokenizer.json`.
pub(super) fn description(bytes: &[u8]) -> Result<String, String> {
    let model = Model::decode(bytes).map_err(|e| format!("not a SentencePiece model ({e})"))?;
    let kind = model.trainer.as_ref().and_then(|t| t.model_type).unwrap_or(UNIGRAM);
    if kind != UNIGRAM {
        return Err(format!("a SentencePiece model of type {kind}; T5's are Unigram models, type {UNIGRAM}"));
    }
    let mut pieces: Vec<(String, f64)> = vec![];
    for p in &model.pieces {
        pieces.push((p.piece.clone().unwrap_or_default(), f64::from(p.score.unwrap_or(0.0))));
    }
    pieces.extend((0..SENTINELS).rev().map(|i| (format!("<extra_id_{i}>"), 0.0)));
    let at = |name: &str| {
        let found = pieces.iter().position(|(p, _)| p == name);
        found.ok_or_else(|| format!("it has no piece `{name}`"))
    };
    let (pad, end, unknown) = (at(PAD)?, at(END)?, at(UNKNOWN)?);
    let first_sentinel = pieces.len() - SENTINELS;
    let specials: Vec<usize> = [pad, end, unknown].into_iter().chain(first_sentinel..pieces.len()).collect();
    let added: Vec<Value> = specials.iter().map(|&id| special(id, &pieces[id].0)).collect();
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer(&model),
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {END: {"id": END, "ids": [end], "tokens": [END]}},
        },
        "decoder": null,
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": pieces, "byte_fallback": false},
    });
    Ok(whole.to_string())
}

fn special(id: usize, content: &str) -> Value {
    json!({
        "id": id, "content": content, "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    })
}

fn normalizer(model: &Model) -> Value {
    let charsmap =
        model.normalizer.as_ref().and_then(|n| n.precompiled_charsmap.as_deref()).unwrap_or_default();
    let mut steps = vec![];
    if !charsmap.is_empty() {
        steps.push(json!({"type": "Precompiled", "precompiled_charsmap": BASE64_STANDARD.encode(charsmap)}));
    }
    steps.push(json!({"type": "Strip", "strip_left": false, "strip_right": true}));
    steps.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}));
    json!({"type": "Sequence", "normalizers": steps})
}
