//! A config: what it describes, and the variables that such a model has.

use std::path::Path;

use ar_model::{ArConfig, ConditioningConfig, Gpt};
use base::config::Document;
use base::{Build, Vars};
use serde::Serialize;
use serde_json::Value as Json;
use tch::{Device, Kind};
use tokenizer::{Model, Tokenizer as _, TokenizerConfig, TokenizerSpec};

use super::format::{Tensor, kind_name, table, thousands};
use crate::error::UserError;

#[derive(Debug, Serialize)]
pub(super) struct ConfigReport {
    path: String,
    /// `tokenizer`, `transformer` or `recipe`.
    describes: &'static str,
    /// In the schema of this program, also for an official file; a recipe is unchanged.
    config: Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tensors: Vec<Tensor>,
    /// Keys of an official file that change nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    without_effect: Vec<String>,
    #[serde(skip)]
    rows: Vec<(&'static str, String)>,
}

/// Says what a config describes.
pub(super) fn inspect(path: &Path, document: &Document, json: &Json) -> anyhow::Result<ConfigReport> {
    let shown = path.display().to_string();
    if json.get("model").is_some() && json.get("optimization").is_some() {
        let kind = json["model"].get("type").and_then(Json::as_str).unwrap_or("model");
        let rows = vec![("trains", kind.to_owned())];
        let config = json.clone();
        return Ok(ConfigReport {
            path: shown,
            describes: "recipe",
            config,
            parameters: None,
            tensors: vec![],
            without_effect: vec![],
            rows,
        });
    }
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
    if let Ok(config) = ArConfig::from_document(document) {
        Gpt::new(&vars.root(), &config)?;
        let rows = transformer_rows(&config);
        let ignored = ArConfig::keys_without_effect(document);
        return Ok(report(shown, "transformer", &vars, serde_json::to_value(&config)?, ignored, rows));
    }
    let official = json.get("model_args").or_else(|| json.get("config")?.get("model_args"));
    let says_transformer = official.is_some() || json.get("type").and_then(Json::as_str) == Some("gpt");
    if says_transformer {
        ArConfig::from_document(document)?; // for its error
    }
    let says_tokenizer =
        json.get("type").is_some() || json.get("model").is_some() || json.get("config").is_some();
    if !says_tokenizer {
        return Err(UserError::new(format!(
            "`{shown}` is a text file, but no config of a model and no recipe"
        ))
        .hint("a config says its `type`: gigatok, llamagen_vq or gpt")
        .into());
    }
    let config = TokenizerConfig::from_document(document)?;
    let rows = tokenizer_rows(Model::new(&vars.root(), &config)?.spec());
    let ignored = TokenizerConfig::keys_without_effect(document);
    Ok(report(shown, "tokenizer", &vars, serde_json::to_value(&config)?, ignored, rows))
}

fn report(
    path: String,
    describes: &'static str,
    vars: &Vars,
    config: Json,
    without_effect: Vec<String>,
    mut rows: Vec<(&'static str, String)>,
) -> ConfigReport {
    let all = vars.all();
    let parameters = vars.num_parameters();
    let count = format!("{} in {} tensors", thousands(parameters.unsigned_abs()), all.len());
    rows.push(("parameters", count));
    if !without_effect.is_empty() {
        rows.push(("no effect", without_effect.join(", ")));
    }
    let tensor = |v: base::vars::Var| {
        let kind = v.tensor.kind();
        let bytes = (v.tensor.numel() * kind.elt_size_in_bytes()) as u64;
        Tensor { name: v.name, shape: v.tensor.size(), kind: kind_name(kind), bytes }
    };
    let tensors = all.into_iter().map(tensor).collect();
    ConfigReport { path, describes, config, parameters: Some(parameters), tensors, without_effect, rows }
}

fn tokenizer_rows(spec: &TokenizerSpec) -> Vec<(&'static str, String)> {
    vec![
        ("images", format!("{0} × {0}", spec.image_size)),
        ("codes", format!("{} of {}, {} numbers each", spec.num_tokens, spec.codebook_size, spec.code_dim)),
    ]
}

fn transformer_rows(config: &ArConfig) -> Vec<(&'static str, String)> {
    let condition = match &config.conditioning {
        ConditioningConfig::Class { num_classes, .. } => format!("one of {num_classes} classes"),
        ConditioningConfig::Text { length, feature_width } => {
            format!("text, {length} features of width {feature_width}")
        }
    };
    vec![
        ("size", format!("{} layers, width {}, {} heads", config.layers, config.width, config.heads)),
        ("codes", format!("{} of {}", config.num_tokens, config.vocab_size)),
        ("condition", condition),
    ]
}

impl ConfigReport {
    pub(super) fn text(&self) -> String {
        let what = match self.describes {
            "recipe" => "a training recipe",
            "tokenizer" => "a tokenizer's config",
            _ => "a transformer's config",
        };
        format!("{}: {what}\n{}", self.path, table(&self.rows))
    }
}
