//! Sizes of a T5 encoder, as Hugging Face's `config.json` states them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An encoder of version 1.1: gated tanh-GELU, no biases, relative positions shared by all blocks.
///
/// The names are those of `config.json`, of which other keys are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct T5Config {
    /// Entries of the vocabulary (V).
    pub vocab_size: i64,
    /// Width (D).
    pub d_model: i64,
    /// Width of a head (K); heads times it need not be D.
    pub d_kv: i64,
    /// Width of the feed-forward (F).
    pub d_ff: i64,
    /// Blocks.
    pub num_layers: i64,
    /// Heads (H).
    pub num_heads: i64,
    /// Classes of distance.
    #[serde(default = "buckets")]
    pub relative_attention_num_buckets: i64,
    /// The distance from which on all are of one class.
    #[serde(default = "farthest")]
    pub relative_attention_max_distance: i64,
    /// Epsilon of the root-mean-square norms.
    #[serde(default = "eps")]
    pub layer_norm_epsilon: f64,
    /// The feed-forward; `gated-gelu` is the only one here.
    #[serde(default = "ungated")]
    pub feed_forward_proj: String,
}

fn buckets() -> i64 {
    32
}
fn farthest() -> i64 {
    128
}
fn eps() -> f64 {
    1e-6
}
/// Defaults of `config.json`.
fn ungated() -> String {
    "relu".into()
}

/// Names, widths, feed-forward widths, blocks and heads of the published sizes.
const SIZES: &[(&str, i64, i64, i64, i64)] = &[
    ("small", 512, 1024, 8, 6),
    ("base", 768, 2048, 12, 12),
    ("large", 1024, 2816, 24, 16),
    ("xl", 2048, 5120, 24, 32),
    ("xxl", 4096, 10240, 24, 64),
];

impl T5Config {
    /// A published size of FLAN-T5 and T5 v1.1 by its name: `small`, `base`, `large`, `xl`, `xxl`.
    pub fn named(name: &str) -> Option<Self> {
        SIZES.iter().find(|s| s.0 == name).map(|&(_, d_model, d_ff, num_layers, num_heads)| T5Config {
            vocab_size: 32128,
            d_model,
            d_kv: 64,
            d_ff,
            num_layers,
            num_heads,
            relative_attention_num_buckets: buckets(),
            relative_attention_max_distance: farthest(),
            layer_norm_epsilon: eps(),
            feed_forward_proj: "gated-gelu".into(),
        })
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or describes no encoder that can be built.
    pub fn read(path: &Path) -> Result<Self> {
        let config: T5Config = base::config::read(path)?;
        config.check()?;
        Ok(config)
    }

    /// Refuses what could not be built.
    ///
    /// # Errors
    /// Returns an error that names an unsupported setting.
    pub fn check(&self) -> Result<()> {
        let wrong = |expected: &str, found: String| {
            Err(Error::Input { what: "T5 configuration", expected: expected.into(), found })
        };
        let counts = [self.vocab_size, self.d_model, self.d_kv, self.d_ff, self.num_layers, self.num_heads];
        if counts.iter().any(|&n| n < 1) {
            return wrong("sizes of at least 1", format!("{counts:?}"));
        }
        let (buckets, farthest) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        if buckets < 4 || buckets % 2 != 0 || farthest <= buckets / 4 {
            let expected = "an even number of buckets, at least 4, and a distance above a quarter of it";
            return wrong(expected, format!("{buckets} and {farthest}"));
        }
        if self.feed_forward_proj != "gated-gelu" {
            let found = format!("`{}`", self.feed_forward_proj);
            return wrong("feed_forward_proj `gated-gelu`, as T5 1.1 and FLAN-T5 have it", found);
        }
        Ok(())
    }
}
