//! What a transformer is made of, as a user writes it.

use std::path::Path;

use base::config::Document;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// A decoder-only transformer over image codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArConfig {
    /// Always `gpt`; tells the file from a tokenizer's.
    #[serde(rename = "type")]
    pub kind: Architecture,
    /// Channels of a token (D).
    pub width: i64,
    /// Number of layers.
    pub layers: i64,
    /// Attention heads; the width is a multiple of it.
    pub heads: i64,
    /// Number of different codes.
    pub vocab_size: i64,
    /// Codes of one image.
    pub num_tokens: i64,
    /// How positions enter.
    pub position: PositionConfig,
    /// What the codes depend on.
    pub conditioning: ConditioningConfig,
    /// LayerNorm on queries and keys, per head (in no release).
    #[serde(default)]
    pub qk_norm: bool,
    /// Adaptive layer norms (in no release).
    #[serde(default)]
    pub modulation: ModulationConfig,
    /// Rates that act in training.
    #[serde(default)]
    pub dropout: DropoutConfig,
}

/// The one architecture there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// LlamaGen's and GigaTok's transformer.
    Gpt,
}

/// How positions enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionConfig {
    /// A learned table added to the inputs (GigaTok `gpt_1d`); with a text as condition, which no release has,
    /// all of its positions share the condition's row.
    Learned,
    /// 2-D rotary embedding of queries and keys (LlamaGen).
    #[serde(rename = "rope_2d")]
    Rope2d,
}

/// What the codes depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ConditioningConfig {
    /// A class; index `num_classes` is the null class.
    Class {
        /// Number of classes.
        num_classes: i64,
    },
    /// Features of a text encoder, left-padded.
    Text {
        /// Prefix positions.
        length: i64,
        /// Width of the features.
        feature_width: i64,
    },
}

impl ConditioningConfig {
    /// Positions in front of the first code.
    pub fn prefix_len(self) -> i64 {
        match self {
            ConditioningConfig::Class { .. } => 1,
            ConditioningConfig::Text { length, .. } => length,
        }
    }
}

/// Adaptive layer norms, conditioned on the class embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModulationConfig {
    /// None (every release).
    #[default]
    None,
    /// A projection in each layer (official `use_adaLN`).
    AdaLn,
    /// One shared projection and a table in each layer (official `use_simple_adaLN`).
    SimpleAdaLn,
}

/// Rates that act in training (official defaults).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DropoutConfig {
    /// After embeddings and positions.
    pub token: f64,
    /// After the attention's output projection.
    pub residual: f64,
    /// After the feed-forward's output projection.
    pub feed_forward: f64,
    /// Stochastic depth of the last layer, growing linearly from 0 at the first.
    pub drop_path: f64,
    /// Probability that a condition is replaced by the null condition.
    pub condition: f64,
}

impl Default for DropoutConfig {
    fn default() -> Self {
        DropoutConfig { token: 0.1, residual: 0.1, feed_forward: 0.1, drop_path: 0.0, condition: 0.1 }
    }
}

/// Names, layers, heads and widths of the released sizes (LlamaGen `gpt.py`).
const SIZES: &[(&str, i64, i64, i64)] = &[
    ("GPT-B", 12, 12, 768),
    ("GPT-L", 24, 16, 1024),
    ("GPT-XL", 36, 20, 1280),
    ("GPT-XXL", 48, 24, 1536),
    ("GPT-XXXL", 48, 40, 2560),
    ("GPT-1B", 22, 32, 2048),
    ("GPT-3B", 24, 32, 3200),
    ("GPT-7B", 32, 32, 4096),
];

impl ArConfig {
    /// A released size by its name, with the published vocabulary of 16,384.
    pub fn named(
        name: &str,
        position: PositionConfig,
        conditioning: ConditioningConfig,
        num_tokens: i64,
    ) -> Option<Self> {
        SIZES.iter().find(|s| s.0 == name).map(|&(_, layers, heads, width)| ArConfig {
            kind: Architecture::Gpt,
            width,
            layers,
            heads,
            vocab_size: 16384,
            num_tokens,
            position,
            conditioning,
            qk_norm: false,
            modulation: ModulationConfig::None,
            dropout: DropoutConfig::default(),
        })
    }

    /// The names [`ArConfig::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SIZES.iter().map(|s| s.0)
    }

    /// Reads a configuration of ours, or the `model_args` of a golden's manifest or of a checkpoint.
    ///
    /// # Errors
    /// The file cannot be read, is not YAML, names an unknown key, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_document(&Document::read(path)?)
    }

    /// The same from parsed YAML.
    pub fn from_document(document: &Document) -> Result<Self> {
        let json = document.to_json()?;
        let config = match official_args(&json) {
            Some((args, source)) => Self::from_official(args, source)?,
            None => document.typed()?,
        };
        config.check()?;
        Ok(config)
    }

    /// The official `ModelArgs`. `gpt_1d` has learned positions, `gpt` 2-D RoPE; which of them is not among
    /// the arguments, so `source` (what the file says of its origin) decides, and text conditioning exists with
    /// RoPE only.
    pub fn from_official(args: &Value, source: &str) -> Result<Self> {
        let args: OfficialArgs =
            serde_json::from_value(args.clone()).map_err(|e| Error::Settings(format!("model_args: {e}")))?;
        let text = args.model_type == "t2i";
        let conditioning = if text {
            ConditioningConfig::Text { length: args.cls_token_num, feature_width: args.caption_dim }
        } else {
            ConditioningConfig::Class { num_classes: args.num_classes }
        };
        let learned = !text && source.contains("gpt_1d");
        let config = ArConfig {
            kind: Architecture::Gpt,
            width: args.dim,
            layers: args.n_layer,
            heads: args.n_head,
            vocab_size: args.vocab_size,
            num_tokens: args.block_size,
            position: if learned { PositionConfig::Learned } else { PositionConfig::Rope2d },
            conditioning,
            qk_norm: args.use_qk_norm,
            modulation: match (args.use_ada_ln, args.use_simple_ada_ln) {
                (false, false) => ModulationConfig::None,
                (true, false) => ModulationConfig::AdaLn,
                (false, true) => ModulationConfig::SimpleAdaLn,
                (true, true) => {
                    return Err(Error::Settings("use_adaLN and use_simple_adaLN exclude each other".into()));
                }
            },
            dropout: DropoutConfig::default(),
        };
        config.check()?;
        Ok(config)
    }

    /// Refuses what could not be built.
    pub fn check(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Settings(message));
        let counts = [self.width, self.layers, self.heads, self.vocab_size, self.num_tokens];
        if counts.iter().any(|&n| n < 1) || self.conditioning.prefix_len() < 1 {
            return fail(
                "width, layers, heads, vocab_size, num_tokens and a text's length must be at least 1".into(),
            );
        }
        if self.width % self.heads != 0 {
            return fail(format!("width {} is not a multiple of heads {}", self.width, self.heads));
        }
        let side = (self.num_tokens as f64).sqrt().round() as i64;
        let head_width = self.width / self.heads;
        match self.position {
            PositionConfig::Rope2d if side * side != self.num_tokens => {
                fail(format!("rope_2d needs a square number of tokens, found {}", self.num_tokens))
            }
            PositionConfig::Rope2d if head_width % 4 != 0 => {
                fail(format!("rope_2d needs a head width that is a multiple of 4, found {head_width}"))
            }
            _ if self.modulation != ModulationConfig::None && self.conditioning.prefix_len() != 1 => {
                fail("adaptive norms go with class conditioning only".into())
            }
            _ => Ok(()),
        }
    }

    /// SwiGLU width: two thirds of 4D, rounded up to a multiple of 256.
    pub fn feed_forward_width(&self) -> i64 {
        (2 * 4 * self.width / 3 + 255) / 256 * 256
    }

    /// The weights that a position is multiplied with: all but embeddings and norms.
    pub fn product_weights(&self) -> i64 {
        let layer = 4 * self.width * self.width + 3 * self.width * self.feed_forward_width();
        self.layers * layer + self.vocab_size * self.width
    }
}

/// `model_args` at the top or under `config`, and the manifest's `source`.
fn official_args(document: &Value) -> Option<(&Value, &str)> {
    let args = document.get("model_args").or_else(|| document.get("config")?.get("model_args"))?;
    Some((args, document.get("source").and_then(Value::as_str).unwrap_or("")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfficialArgs {
    dim: i64,
    n_layer: i64,
    n_head: i64,
    vocab_size: i64,
    block_size: i64,
    #[serde(default = "thousand")]
    num_classes: i64,
    #[serde(default = "class_conditional")]
    model_type: String,
    #[serde(default = "one")]
    cls_token_num: i64,
    #[serde(default = "t5_width")]
    caption_dim: i64,
    #[serde(default)]
    use_qk_norm: bool,
    #[serde(default, rename = "use_adaLN")]
    use_ada_ln: bool,
    #[serde(default, rename = "use_simple_adaLN")]
    use_simple_ada_ln: bool,
}

fn thousand() -> i64 {
    1000
}
fn class_conditional() -> String {
    "c2i".into()
}
fn one() -> i64 {
    1
}
fn t5_width() -> i64 {
    2048
}
