//! Inputs of the first layer: embedded conditions and codes, with learned positions if the model
//! has them.
//!
//! B batch, T prefix length, N codes, S positions, D width, V vocabulary

use base::{Init, Scope};
use tch::{Device, Kind, Tensor};

use crate::conditioning::{Conditioning, Embedder};
use crate::config::{ArConfig, ConditioningConfig, PositionConfig};
use crate::error::{Error, Result};
use crate::position::Positions;

/// Embedding tables, and the dtype of activations.
#[derive(Debug)]
pub(crate) struct Embeddings {
    pub embedder: Embedder,
    pub code_table: Tensor,             // (V, D)
    pub position_table: Option<Tensor>, // (1 + N, D)
    /// Dtype of activations.
    pub compute: Kind,
    pub prefix_len: i64,
    num_tokens: i64,
    conditioning: ConditioningConfig,
}

impl Embeddings {
    /// Creates variables under `p` with the official names.
    pub fn new(p: &Scope, config: &ArConfig) -> Self {
        let (d, n) = (config.width, config.num_tokens);
        let learned = config.position == PositionConfig::Learned;
        let init = Init::Normal { std: (d as f64).powf(-0.5) };
        Embeddings {
            position_table: learned.then(|| p.var("positional_embedding", &[1 + n, d], init)),
            embedder: Embedder::new(&(p / "cls_embedding"), config),
            code_table: (p / "tok_embeddings").var("weight", &[config.vocab_size, d], config.weight_init()),
            compute: p.vars().kind(),
            prefix_len: config.conditioning.prefix_len(),
            num_tokens: n,
            conditioning: config.conditioning,
        }
    }

    pub fn device(&self) -> Device {
        self.code_table.device()
    }

    /// Returns an error if the type, shape or range of conditions does not match the model.
    pub fn check(&self, cond: &Conditioning) -> Result<()> {
        let fail =
            |expected: String, found: String| Err(Error::Input { what: "conditions", expected, found });
        match (self.conditioning, cond) {
            (ConditioningConfig::Class { num_classes, null_class }, Conditioning::Class(ids)) => {
                if ids.dim() != 1 || ids.kind() != Kind::Int64 {
                    return fail("int64 (B,)".into(), format!("{:?} {:?}", ids.kind(), ids.size()));
                }
                let (low, high) = (ids.min().int64_value(&[]), ids.max().int64_value(&[]));
                let last = if null_class { num_classes } else { num_classes - 1 };
                let why = if null_class { "" } else { " (it has no null class, which guidance needs)" };
                if low < 0 || high > last {
                    return fail(format!("classes in 0..={last}{why}"), format!("{low}..={high}"));
                }
                Ok(())
            }
            (ConditioningConfig::Text { length, feature_width }, Conditioning::Text { features, mask }) => {
                let (f, m) = (features.size(), mask.size());
                if f.len() != 3 || f[1..] != [length, feature_width] || m != f[..2] {
                    return fail(
                        format!("features (B, {length}, {feature_width}), mask (B, {length})"),
                        format!("{f:?}, {m:?}"),
                    );
                }
                Ok(())
            }
            (ConditioningConfig::Class { .. }, _) => fail("classes".into(), "text".into()),
            (ConditioningConfig::Text { .. }, _) => fail("text".into(), "classes".into()),
        }
    }

    /// Embeds conditions → prefix (B, T, D) without positions. Conditions are dropped where
    /// `drop` (B,) bool is true.
    pub fn condition(&self, cond: &Conditioning, drop: Option<&Tensor>) -> Tensor {
        match drop {
            Some(drop) => self.embedder.forward(&self.embedder.drop(cond, drop), self.compute),
            None => self.embedder.forward(cond, self.compute),
        }
    }

    /// Prefix with positions, (B, T, D). All positions of a text have the same row of the learned
    /// table: the order of a text is in its features, and LlamaGen's rotary table has no positions
    /// there either.
    pub fn prefix(&self, cond: &Conditioning, drop: Option<&Tensor>) -> Tensor {
        let prefix = self.condition(cond, drop);
        match &self.position_table {
            Some(table) => prefix + table.narrow(0, 0, 1).to_kind(self.compute),
            None => prefix,
        }
    }

    /// Embeds codes (B, S) → (B, S, D) with positions. The learned table has one row for the
    /// whole prefix.
    pub fn codes(&self, codes: &Tensor, positions: Positions) -> Tensor {
        let embedded = Tensor::embedding(&self.code_table, codes, -1, false, false).to_kind(self.compute);
        match &self.position_table {
            Some(table) => {
                let rows = positions.rows(table, self.prefix_len - 1, codes.size()[1]);
                embedded + rows.to_kind(self.compute)
            }
            None => embedded,
        }
    }

    /// Inputs of a teacher-forced pass over codes (B, N): prefix and all codes but the last,
    /// (B, T + N − 1, D).
    pub fn sequence(&self, cond: &Conditioning, codes: &Tensor, drop: Option<&Tensor>) -> Tensor {
        let prefix = self.prefix(cond, drop);
        let inputs = codes.narrow(1, 0, self.num_tokens - 1);
        Tensor::cat(&[prefix, self.codes(&inputs, Positions::Range(self.prefix_len))], 1)
    }
}
