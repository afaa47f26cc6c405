//! `ModelArgs` of LlamaGen's `gpt.py` and GigaTok's `gpt.py` and `gpt_1d.py`: all fields, with
//! their defaults.

use serde::Deserialize;
use serde_json::Value;

use super::{ArConfig, ConditioningConfig, DropoutConfig, ModulationConfig, PositionConfig};
use crate::error::{Error, Result};

pub(super) fn rope_base() -> f64 {
    10_000.0
}

pub(super) fn norm_eps() -> f64 {
    1e-5
}

pub(super) fn initializer_range() -> f64 {
    0.02
}

/// `model_args` at the top level or under `config`, and the manifest's `source`.
pub(super) fn find(document: &Value) -> Option<(&Value, &str)> {
    let args = document.get("model_args").or_else(|| document.get("config")?.get("model_args"))?;
    Some((args, document.get("source").and_then(Value::as_str).unwrap_or("")))
}

/// Hidden width of `FeedForward`: two thirds of 4D, rounded down, times `multiplier`, rounded down,
/// rounded up to a multiple of `multiple`.
pub(super) fn feed_forward_width(width: i64, multiplier: Option<f64>, multiple: i64) -> i64 {
    let hidden = 8 * width / 3;
    let hidden = multiplier.map_or(hidden, |m| (m * hidden as f64) as i64);
    hidden + (multiple - hidden % multiple) % multiple
}

/// Keys that never have an effect, and keys that have none with the other arguments.
pub(super) fn without_effect(args: &Value) -> Vec<String> {
    let Some(keys) = args.as_object() else { return vec![] };
    let is = |key: &str, value: bool| keys.get(key).and_then(Value::as_bool) == Some(value);
    let text = keys.get("model_type").and_then(Value::as_str) == Some("t2i");
    let unused = |key: &str| match key {
        "max_batch_size" | "max_seq_len" | "use_flash_attn" => true,
        "caption_dim" => !text,
        "num_classes" => text,
        "no_adaLN_before" => !is("use_adaLN", true) && !is("use_simple_adaLN", true),
        _ => false,
    };
    keys.keys().filter(|key| unused(key)).cloned().collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ModelArgs {
    dim: i64,
    n_layer: i64,
    n_head: i64,
    n_kv_head: Option<i64>,
    multiple_of: i64,
    ffn_dim_multiplier: Option<f64>,
    rope_base: f64,
    norm_eps: f64,
    initializer_range: f64,
    token_dropout_p: f64,
    attn_dropout_p: f64,
    resid_dropout_p: f64,
    ffn_dropout_p: f64,
    drop_path_rate: f64,
    /// 1-D rotary positions of `gpt_1d`.
    rope: bool,
    use_qk_norm: bool,
    /// Choice of the attention kernel.
    #[serde(rename = "use_flash_attn")]
    _use_flash_attn: Option<bool>,
    #[serde(rename = "use_adaLN")]
    use_ada_ln: bool,
    #[serde(rename = "use_simple_adaLN")]
    use_simple_ada_ln: bool,
    #[serde(rename = "no_adaLN_before")]
    no_ada_ln_before: Option<i64>,
    num_classes: i64,
    caption_dim: i64,
    class_dropout_prob: f64,
    model_type: String,
    vocab_size: i64,
    cls_token_num: i64,
    block_size: i64,
    /// Sizes of the official cache.
    #[serde(rename = "max_batch_size")]
    _max_batch_size: Option<i64>,
    #[serde(rename = "max_seq_len")]
    _max_seq_len: Option<i64>,
}

impl Default for ModelArgs {
    fn default() -> Self {
        ModelArgs {
            dim: 4096,
            n_layer: 32,
            n_head: 32,
            n_kv_head: None,
            multiple_of: 256,
            ffn_dim_multiplier: None,
            rope_base: rope_base(),
            norm_eps: norm_eps(),
            initializer_range: initializer_range(),
            token_dropout_p: 0.1,
            attn_dropout_p: 0.0,
            resid_dropout_p: 0.1,
            ffn_dropout_p: 0.1,
            drop_path_rate: 0.0,
            rope: false,
            use_qk_norm: false,
            _use_flash_attn: None,
            use_ada_ln: false,
            use_simple_ada_ln: false,
            no_ada_ln_before: None,
            num_classes: 1000,
            caption_dim: 2048,
            class_dropout_prob: 0.1,
            model_type: "c2i".into(),
            vocab_size: 16384,
            cls_token_num: 1,
            block_size: 256,
            _max_batch_size: None,
            _max_seq_len: None,
        }
    }
}

fn refuse<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Settings(format!("model_args: {}", message.into())))
}

impl ModelArgs {
    pub(super) fn read(args: &Value) -> Result<Self> {
        serde_json::from_value(args.clone()).map_err(|e| Error::Settings(format!("model_args: {e}")))
    }

    pub(super) fn convert(&self, learned: bool) -> Result<ArConfig> {
        let conditioning = self.conditioning()?;
        let learned = learned && matches!(conditioning, ConditioningConfig::Class { .. });
        if self.rope {
            return refuse(
                "`rope: true` is not supported: upstream's 1-D rotary table has 120 rows of zeros and a base of 1, and \
                 its generation stops with an error",
            );
        }
        let position = if learned { PositionConfig::Learned } else { PositionConfig::Rope2d };
        let sizes = [self.dim, self.n_layer, self.n_head, self.vocab_size, self.block_size];
        Ok(ArConfig {
            kv_heads: self.n_kv_head.filter(|&n| n != self.n_head),
            feed_forward_width: self.feed_forward()?,
            rope_base: self.rope_base,
            norm_eps: self.norm_eps,
            initializer_range: self.initializer_range,
            qk_norm: self.use_qk_norm,
            modulation: self.modulation()?,
            dropout: DropoutConfig {
                token: self.token_dropout_p,
                attention: self.attn_dropout_p,
                residual: self.resid_dropout_p,
                feed_forward: self.ffn_dropout_p,
                drop_path: self.drop_path_rate,
                condition: self.class_dropout_prob,
            },
            // What upstream lacks.
            ..ArConfig::plain(sizes, position, conditioning)
        })
    }

    fn conditioning(&self) -> Result<ConditioningConfig> {
        match self.model_type.as_str() {
            "t2i" => {
                Ok(ConditioningConfig::Text { length: self.cls_token_num, feature_width: self.caption_dim })
            }
            "c2i" if self.cls_token_num == 1 => Ok(ConditioningConfig::Class {
                num_classes: self.num_classes,
                null_class: self.class_dropout_prob > 0.0,
            }),
            "c2i" => refuse(format!("a class is one token, and cls_token_num is {}", self.cls_token_num)),
            other => refuse(format!("model_type is c2i or t2i, found `{other}`")),
        }
    }

    /// Hidden width of the feed-forward, if it is not the default for the model's width.
    fn feed_forward(&self) -> Result<Option<i64>> {
        let multiplier = self.ffn_dim_multiplier.unwrap_or(1.0);
        let fits = self.multiple_of >= 1 && multiplier.is_finite() && multiplier > 0.0;
        if !fits || !(1..=1 << 24).contains(&self.dim) || self.multiple_of > 1 << 24 || multiplier > 1e6 {
            return refuse(format!(
                "dim {}, multiple_of {} and ffn_dim_multiplier {multiplier} give no feed-forward width",
                self.dim, self.multiple_of
            ));
        }
        let width = feed_forward_width(self.dim, self.ffn_dim_multiplier, self.multiple_of);
        Ok(Some(width).filter(|&w| w != feed_forward_width(self.dim, None, 256)))
    }

    fn modulation(&self) -> Result<ModulationConfig> {
        let found = match (self.use_ada_ln, self.use_simple_ada_ln) {
            (false, false) => ModulationConfig::None,
            (true, false) => ModulationConfig::AdaLn,
            (false, true) => ModulationConfig::SimpleAdaLn,
            (true, true) => return refuse("use_adaLN and use_simple_adaLN exclude each other"),
        };
        match self.no_ada_ln_before {
            Some(n) if found != ModulationConfig::None => refuse(format!(
                "`no_adaLN_before: {n}` is not supported: upstream adds layers for it instead of replacing them, and \
                 with use_adaLN stops with an error"
            )),
            _ => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(args: Value) -> Result<ArConfig> {
        ArConfig::from_official(&args, "gpt_1d.py")
    }

    #[test]
    fn sizes_that_no_machine_holds_are_refused_by_their_names() {
        for (key, name) in [
            ("n_layer", "layers"),
            ("n_head", "heads"),
            ("vocab_size", "vocab_size"),
            ("block_size", "num_tokens"),
            ("num_classes", "num_classes"),
        ] {
            let error = config(json!({ key: i64::MAX })).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} must be at most")), "{error}");
        }
    }

    /// The fields of both dataclasses, in their order, at their defaults.
    #[test]
    fn every_field_of_the_official_arguments_is_understood() {
        let args = json!({
            "dim": 4096, "n_layer": 32, "n_head": 32, "n_kv_head": null, "multiple_of": 256,
            "ffn_dim_multiplier": null, "rope_base": 10000, "norm_eps": 1e-5, "initializer_range": 0.02,
            "token_dropout_p": 0.1, "attn_dropout_p": 0.0, "resid_dropout_p": 0.1, "ffn_dropout_p": 0.1,
            "drop_path_rate": 0.0, "rope": false, "use_qk_norm": false, "use_flash_attn": false,
            "use_adaLN": false, "use_simple_adaLN": false, "no_adaLN_before": null, "num_classes": 1000,
            "caption_dim": 2048, "class_dropout_prob": 0.1, "model_type": "c2i", "vocab_size": 16384,
            "cls_token_num": 1, "block_size": 256, "max_batch_size": 32, "max_seq_len": 2048
        });
        let found = config(args.clone()).unwrap();
        assert_eq!(found, config(json!({})).unwrap());
        let classes = ConditioningConfig::classes(1000);
        assert_eq!(Some(found), ArConfig::named("GPT-7B", PositionConfig::Learned, classes, 256));
        let unused = ["use_flash_attn", "no_adaLN_before", "caption_dim", "max_batch_size", "max_seq_len"];
        let mut unused = unused.map(str::to_owned);
        unused.sort();
        let mut said = without_effect(&args);
        said.sort();
        assert_eq!(said, unused);
        assert!(config(json!({"multiple": 3})).unwrap_err().to_string().contains("unknown field `multiple`"));
    }

    /// Against Python's `find_multiple(int(m * int(2 * (4 * dim) / 3)), multiple_of)`.
    #[test]
    fn fields_that_the_official_code_uses_change_the_model() {
        let width = |dim: i64, multiple: i64, multiplier: Option<f64>| {
            let args =
                json!({"dim": dim, "n_head": 4, "multiple_of": multiple, "ffn_dim_multiplier": multiplier});
            config(args).unwrap().feed_forward_width()
        };
        assert_eq!(width(48, 256, None), 256);
        assert_eq!(width(48, 16, None), 128);
        assert_eq!(width(48, 1, None), 128);
        assert_eq!(width(40, 32, None), 128); // 106
        assert_eq!(width(40, 32, Some(1.3)), 160); // 106 → 137
        let found = config(json!({
            "dim": 48, "n_head": 4, "n_kv_head": 2, "rope_base": 500.0, "norm_eps": 1e-6, "initializer_range": 0.1,
            "token_dropout_p": 0.2, "attn_dropout_p": 0.3, "resid_dropout_p": 0.4, "ffn_dropout_p": 0.5,
            "drop_path_rate": 0.6, "class_dropout_prob": 0.0
        }))
        .unwrap();
        assert_eq!((found.num_kv_heads(), found.qkv_width()), (2, 96));
        assert_eq!((found.rope_base, found.norm_eps, found.initializer_range), (500.0, 1e-6, 0.1));
        let DropoutConfig { token, attention, residual, feed_forward, drop_path, condition } = found.dropout;
        assert_eq!(
            [token, attention, residual, feed_forward, drop_path, condition],
            [0.2, 0.3, 0.4, 0.5, 0.6, 0.0]
        );
        let null_class = matches!(found.conditioning, ConditioningConfig::Class { null_class: true, .. });
        assert!(!null_class);
        // What is written is read again as the same.
        let text = base::config::to_yaml(&found).unwrap();
        let document = base::config::Document::parse("again", &text).unwrap();
        assert_eq!(ArConfig::from_document(&document).unwrap(), found);
    }

    #[test]
    fn what_upstream_cannot_run_is_refused_by_name() {
        for (args, name) in [
            (json!({"rope": true}), "rope: true"),
            (json!({"use_simple_adaLN": true, "no_adaLN_before": 3}), "no_adaLN_before: 3"),
            (json!({"use_simple_adaLN": true, "use_adaLN": true}), "exclude"),
            (json!({"n_kv_head": 5}), "not a multiple of kv_heads 5"),
            (json!({"n_kv_head": 0}), "kv_heads 0"),
            (json!({"multiple_of": 0}), "multiple_of 0"),
            (json!({"norm_eps": 0.0}), "norm_eps"),
            (json!({"model_type": "i2i"}), "`i2i`"),
            (json!({"cls_token_num": 2}), "cls_token_num is 2"),
            (json!({"token_dropout_p": 1.5}), "dropout.token"),
        ] {
            let error = config(args).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
