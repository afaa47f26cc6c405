//! Conditions, and their embedding as the prefix of the sequence.
//!
//! B batch, T prefix positions, C text feature width, D model width

use base::{Init, Scope};
use nn::Linear;
use tch::{Kind, Tensor};

use crate::config::{ArConfig, ConditioningConfig};
use crate::error::{Error, Result};

/// A batch of conditions.
#[derive(Debug)]
pub enum Conditioning {
    /// (B,) int64 class indices; `num_classes` is the null class, if the model has one.
    Class(Tensor),
    /// Left-padded text features (B, T, C) and their mask (B, T) bool.
    Text {
        /// Features of the text encoder; zero at padding.
        features: Tensor,
        /// True at text, false at padding.
        mask: Tensor,
    },
}

impl Conditioning {
    /// Number of conditions in the batch.
    pub fn batch_size(&self) -> i64 {
        match self {
            Conditioning::Class(ids) => ids.size()[0],
            Conditioning::Text { features, .. } => features.size()[0],
        }
    }

    /// Conditions with these indices, int64 on the host.
    pub fn select(&self, indices: &Tensor) -> Conditioning {
        let of = |t: &Tensor| t.index_select(0, &indices.to_device(t.device()));
        match self {
            Conditioning::Class(ids) => Conditioning::Class(of(ids)),
            Conditioning::Text { features, mask } => {
                Conditioning::Text { features: of(features), mask: of(mask) }
            }
        }
    }

    /// Concatenates batches of one type.
    ///
    /// # Errors
    /// Returns an error if there are none, or both classes and texts.
    pub fn cat(parts: &[&Conditioning]) -> Result<Conditioning> {
        let mut classes = vec![];
        let mut texts = vec![];
        for part in parts {
            match part {
                Conditioning::Class(ids) => classes.push(ids),
                Conditioning::Text { features, mask } => texts.push((features, mask)),
            }
        }
        match (classes.is_empty(), texts.is_empty()) {
            (false, true) => Ok(Conditioning::Class(Tensor::cat(&classes, 0))),
            (true, false) => Ok(Conditioning::Text {
                features: Tensor::cat(&texts.iter().map(|t| t.0).collect::<Vec<_>>(), 0),
                mask: Tensor::cat(&texts.iter().map(|t| t.1).collect::<Vec<_>>(), 0),
            }),
            (a, _) => Err(Error::Input {
                what: "conditions",
                expected: "one or more of one type".into(),
                found: if a { "none".into() } else { "classes and texts".into() },
            }),
        }
    }

    pub(crate) fn prefix_mask(&self) -> Option<&Tensor> {
        match self {
            Conditioning::Class(_) => None,
            Conditioning::Text { mask, .. } => Some(mask),
        }
    }
}

/// Conditions → prefix (B, T, D), under the official prefix `cls_embedding`.
#[derive(Debug)]
pub(crate) enum Embedder {
    /// (num_classes + 1, D); the last row is the null class, if there is one.
    Class { table: Tensor, null: i64 },
    /// Features through `cap_proj` (linear, tanh-GELU, linear, no biases). The null condition is a
    /// buffer of random features that is not trained, but saved, so that it must come from the
    /// checkpoint.
    Text { fc1: Linear, fc2: Linear, unconditional: Tensor },
}

impl Embedder {
    pub fn new(p: &Scope, config: &ArConfig) -> Self {
        let (width, weight) = (config.width, config.weight_init());
        match config.conditioning {
            ConditioningConfig::Class { num_classes, null_class } => {
                let rows = num_classes + i64::from(null_class);
                Embedder::Class {
                    table: (p / "embedding_table").var("weight", &[rows, width], weight),
                    null: num_classes,
                }
            }
            ConditioningConfig::Text { length, feature_width } => Embedder::Text {
                fc1: Linear::new(&(p / "cap_proj" / "fc1"), feature_width, width, weight, None),
                fc2: Linear::new(&(p / "cap_proj" / "fc2"), width, width, weight, None),
                unconditional: p.buffer(
                    "uncond_embedding",
                    &[length, feature_width],
                    p.vars().kind(),
                    Init::Normal { std: (feature_width as f64).powf(-0.5) },
                ),
            },
        }
    }

    /// Null conditions, one for each of `like`. Texts keep the masks of their captions, as
    /// published (LlamaGen `generate.py`).
    pub fn null(&self, like: &Conditioning) -> Conditioning {
        match (self, like) {
            (Embedder::Text { unconditional, .. }, Conditioning::Text { features, mask }) => {
                Conditioning::Text {
                    features: unconditional
                        .to_kind(features.kind())
                        .unsqueeze(0)
                        .expand_as(features)
                        .contiguous(),
                    mask: mask.shallow_clone(),
                }
            }
            (Embedder::Class { null, .. }, Conditioning::Class(ids)) => {
                Conditioning::Class(ids.full_like(*null))
            }
            _ => unreachable!("checked by `Gpt::check_conditioning`"),
        }
    }

    /// Replaces each condition by the null condition where `drop` (B,) bool is true.
    pub fn drop(&self, cond: &Conditioning, drop: &Tensor) -> Conditioning {
        match (cond, self.null(cond)) {
            (Conditioning::Class(ids), Conditioning::Class(null)) => {
                Conditioning::Class(null.where_self(drop, ids))
            }
            (Conditioning::Text { features, mask }, Conditioning::Text { features: null, .. }) => {
                Conditioning::Text {
                    features: null.where_self(&drop.view([-1, 1, 1]), features),
                    mask: mask.shallow_clone(),
                }
            }
            _ => unreachable!("null conditions have the type of those they replace"),
        }
    }

    /// Embeds conditions → (B, T, D) in dtype `kind`.
    pub fn forward(&self, cond: &Conditioning, kind: Kind) -> Tensor {
        match (self, cond) {
            (Embedder::Class { table, .. }, Conditioning::Class(ids)) => {
                Tensor::embedding(table, ids, -1, false, false).unsqueeze(1).to_kind(kind)
            }
            (Embedder::Text { fc1, fc2, .. }, Conditioning::Text { features, .. }) => {
                fc2.forward(&fc1.forward(&features.to_kind(kind)).gelu("tanh"))
            }
            _ => unreachable!("checked by `Gpt::check_conditioning`"),
        }
    }
}
