//! Configuration of a transformer.

use std::path::Path;

use base::Init;
use base::config::Document;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

mod official;
mod options;

/// A decoder-only transformer over image codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArConfig {
    /// Always `gpt`; distinguishes the file from a tokenizer's.
    #[serde(rename = "type")]
    pub kind: Architecture,
    /// Channels of a token (D).
    pub width: i64,
    /// Number of layers.
    pub layers: i64,
    /// Attention heads; a divisor of the width.
    pub heads: i64,
    /// Heads of keys and values, each shared by a group of query heads (grouped-query attention,
    /// Ainslie et al., arXiv 2305.13245; official `n_kv_head`). Default: as many as heads, as in
    /// every release.
    #[serde(default)]
    pub kv_heads: Option<i64>,
    /// Hidden width of the feed-forward; see [`ArConfig::feed_forward_width`] for that of every
    /// release.
    #[serde(default)]
    pub feed_forward_width: Option<i64>,
    /// Number of different codes.
    pub vocab_size: i64,
    /// Codes per image.
    pub num_tokens: i64,
    /// Encoding of positions.
    pub position: PositionConfig,
    /// Condition of the codes.
    pub conditioning: ConditioningConfig,
    /// Base of the rotary embedding's angles.
    #[serde(default = "official::rope_base")]
    pub rope_base: f64,
    /// Epsilon of the RMS norms.
    #[serde(default = "official::norm_eps")]
    pub norm_eps: f64,
    /// Standard deviation of initial weights.
    #[serde(default = "official::initializer_range")]
    pub initializer_range: f64,
    /// LayerNorm on queries and keys, per head (in no release).
    #[serde(default)]
    pub qk_norm: bool,
    /// Adaptive layer norms (in no release).
    #[serde(default)]
    pub modulation: ModulationConfig,
    /// Dropout rates in training.
    #[serde(default)]
    pub dropout: DropoutConfig,
}

/// Architecture of a transformer; there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// LlamaGen's and GigaTok's transformer.
    Gpt,
}

/// Encoding of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionConfig {
    /// A learned table added to the inputs (GigaTok `gpt_1d`). With text conditioning, which no
    /// release has, all positions of the text share the condition's row.
    Learned,
    /// 2-D rotary embedding of queries and keys (LlamaGen).
    #[serde(rename = "rope_2d")]
    Rope2d,
}

/// Condition of the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ConditioningConfig {
    /// A class; index `num_classes` is the null class.
    Class {
        /// Number of classes.
        num_classes: i64,
        /// Whether there is a null class, which guidance and dropped conditions need. Every release
        /// has it. (The official code has none if `class_dropout_prob` is 0.)
        #[serde(default = "yes")]
        null_class: bool,
    },
    /// Features of a text encoder, left-padded.
    Text {
        /// Prefix positions.
        length: i64,
        /// Width of the features.
        feature_width: i64,
    },
}

fn yes() -> bool {
    true
}

impl ConditioningConfig {
    /// Class conditioning with `num_classes` classes and a null class.
    pub fn classes(num_classes: i64) -> Self {
        ConditioningConfig::Class { num_classes, null_class: true }
    }

    /// Positions before the first code.
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

/// Dropout rates in training (official defaults).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DropoutConfig {
    /// Dropout of embeddings with positions.
    pub token: f64,
    /// Dropout of attention weights (0 in every release).
    pub attention: f64,
    /// Dropout after the attention's output projection.
    pub residual: f64,
    /// Dropout after the feed-forward's output projection.
    pub feed_forward: f64,
    /// Stochastic depth of the last layer, growing linearly from 0 at the first.
    pub drop_path: f64,
    /// Probability that a condition is replaced by the null condition.
    pub condition: f64,
}

impl Default for DropoutConfig {
    fn default() -> Self {
        DropoutConfig {
            token: 0.1,
            attention: 0.0,
            residual: 0.1,
            feed_forward: 0.1,
            drop_path: 0.0,
            condition: 0.1,
        }
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
    /// A released size by name, with the published vocabulary of 16,384; `None` if the name is
    /// unknown.
    pub fn named(
        name: &str,
        position: PositionConfig,
        conditioning: ConditioningConfig,
        num_tokens: i64,
    ) -> Option<Self> {
        let size = SIZES.iter().find(|s| s.0 == name);
        size.map(|&(_, layers, heads, width)| {
            ArConfig::plain([width, layers, heads, 16384, num_tokens], position, conditioning)
        })
    }

    /// A network without any option, of these `[width, layers, heads, vocab_size, num_tokens]`.
    fn plain(
        [width, layers, heads, vocab_size, num_tokens]: [i64; 5],
        position: PositionConfig,
        conditioning: ConditioningConfig,
    ) -> Self {
        ArConfig {
            kind: Architecture::Gpt,
            width,
            layers,
            heads,
            kv_heads: None,
            feed_forward_width: None,
            rope_base: official::rope_base(),
            norm_eps: official::norm_eps(),
            initializer_range: official::initializer_range(),
            vocab_size,
            num_tokens,
            position,
            conditioning,
            qk_norm: false,
            modulation: ModulationConfig::None,
            dropout: DropoutConfig::default(),
        }
    }

    /// Names of the released sizes, for [`ArConfig::named`].
    pub fn names() -> impl Iterator<Item = &'static str> {
        SIZES.iter().map(|s| s.0)
    }

    /// Reads a configuration, or the official `model_args` of a golden's manifest or of a
    /// checkpoint.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not YAML, has an unknown key, or is
    /// inconsistent.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_document(&Document::read(path)?)
    }

    /// [`ArConfig::read`] from parsed YAML.
    ///
    /// # Errors
    /// Returns an error if there is an unknown key, or the configuration is inconsistent.
    pub fn from_document(document: &Document) -> Result<Self> {
        let json = document.to_json()?;
        let config = match official::find(&json) {
            Some((args, source)) => Self::from_official(args, source)?,
            None => document.typed()?,
        };
        config.check()?;
        Ok(config)
    }

    /// Converts the official `ModelArgs` of both projects. `gpt_1d` has learned positions, `gpt`
    /// 2-D RoPE; the arguments do not say which, so `source`, the file's own note of its origin,
    /// decides. Text conditioning exists with RoPE only.
    ///
    /// # Errors
    /// Returns an error if a key is unknown, or a value is not supported upstream or inconsistent
    /// with another.
    pub fn from_official(args: &Value, source: &str) -> Result<Self> {
        let config = official::ModelArgs::read(args)?.convert(source.contains("gpt_1d"))?;
        config.check()?;
        Ok(config)
    }

    /// Keys of official `model_args` in a document that have no effect, in their order: cache
    /// sizes, choice of attention kernels, options of disabled features.
    pub fn keys_without_effect(document: &Document) -> Vec<String> {
        let json = document.to_json().unwrap_or_default();
        official::find(&json).map(|(args, _)| official::without_effect(args)).unwrap_or_default()
    }

    /// Checks that the network can be built.
    ///
    /// # Errors
    /// Returns an error that names the first setting out of its range, or inconsistent with
    /// another.
    pub fn check(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Settings(message));
        let counts = [self.width, self.layers, self.heads, self.vocab_size, self.num_tokens];
        if counts.iter().any(|&n| n < 1) || self.conditioning.prefix_len() < 1 {
            return fail(
                "width, layers, heads, vocab_size, num_tokens and a text's length must be at least 1".into(),
            );
        }
        self.check_bounds()?;
        if self.width % self.heads != 0 {
            return fail(format!("width {} is not a multiple of heads {}", self.width, self.heads));
        }
        let kv_heads = self.num_kv_heads();
        if kv_heads < 1 || self.heads % kv_heads != 0 {
            return fail(format!("heads {} is not a multiple of kv_heads {kv_heads}", self.heads));
        }
        self.check_numbers()?;
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
                fail("adaptive norms need class conditioning".into())
            }
            _ => Ok(()),
        }
    }

    /// Checks upper bounds of sizes, beyond which later products would overflow.
    fn check_bounds(&self) -> Result<()> {
        let (feature_width, classes) = match self.conditioning {
            ConditioningConfig::Class { num_classes, .. } => (1, num_classes),
            ConditioningConfig::Text { feature_width, .. } => (feature_width, 0),
        };
        let bounds = [
            ("width", self.width, 1 << 20),
            ("layers", self.layers, 10_000),
            ("heads", self.heads, 1 << 16),
            ("feed_forward_width", self.feed_forward_width.unwrap_or(1), 1 << 24),
            ("vocab_size", self.vocab_size, 1 << 28),
            ("num_tokens", self.num_tokens, 1 << 24),
            ("num_classes", classes, 1 << 28),
            ("a text's length", self.conditioning.prefix_len(), 1 << 20),
            ("feature_width", feature_width, 1 << 20),
        ];
        match bounds.iter().find(|(_, found, most)| found > most) {
            None => Ok(()),
            Some((key, found, most)) => {
                Err(Error::Settings(format!("{key} must be at most {most}, found {found}")))
            }
        }
    }

    fn check_numbers(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Settings(message));
        let DropoutConfig { token, attention, residual, feed_forward, drop_path, condition } = self.dropout;
        let rates = [
            ("token", token),
            ("attention", attention),
            ("residual", residual),
            ("feed_forward", feed_forward),
            ("drop_path", drop_path),
        ];
        if let Some((name, rate)) = rates.iter().find(|(_, rate)| !(0.0..1.0).contains(rate)) {
            return fail(format!("dropout.{name} is a rate from 0 to below 1, found {rate}"));
        }
        if !(0.0..=1.0).contains(&condition) {
            return fail(format!("dropout.condition is a probability, found {condition}"));
        }
        if condition > 0.0 && matches!(self.conditioning, ConditioningConfig::Class { null_class: false, .. })
        {
            return fail(format!(
                "dropout.condition of {condition} replaces classes by the null class, which `null_class: false` \
                 removes; change one of them"
            ));
        }
        let positive = [
            ("feed_forward_width", self.feed_forward_width() as f64),
            ("rope_base", self.rope_base),
            ("norm_eps", self.norm_eps),
        ];
        if let Some((name, value)) = positive.iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
            return fail(format!("{name} must be above 0, found {value}"));
        }
        if !(self.initializer_range.is_finite() && self.initializer_range >= 0.0) {
            return fail(format!(
                "initializer_range is a standard deviation, found {}",
                self.initializer_range
            ));
        }
        Ok(())
    }

    /// Number of key/value heads.
    pub fn num_kv_heads(&self) -> i64 {
        self.kv_heads.unwrap_or(self.heads)
    }

    /// Channels of queries, keys and values of a position.
    pub fn qkv_width(&self) -> i64 {
        (self.heads + 2 * self.num_kv_heads()) * (self.width / self.heads)
    }

    /// Hidden width of the feed-forward; by default two thirds of 4D, rounded up to a multiple of
    /// 256.
    pub fn feed_forward_width(&self) -> i64 {
        self.feed_forward_width.unwrap_or_else(|| official::feed_forward_width(self.width, None, 256))
    }

    /// Initial distribution of weights that do not start at zero.
    pub(crate) fn weight_init(&self) -> Init {
        Init::Normal { std: self.initializer_range }
    }

    /// Number of weights in matrix products: all but embeddings and norms.
    pub fn product_weights(&self) -> i64 {
        let layer = self.width * (self.qkv_width() + self.width + 3 * self.feed_forward_width());
        self.layers * layer + self.vocab_size * self.width
    }
}
