//! The named transformer sizes of the paper (table 2; official `blocks.py`).

use serde::{Deserialize, Serialize};

/// Width, depth and heads of one transformer. The MLP is four times as wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerSize {
    /// Channels of a token.
    pub width: i64,
    /// Number of layers.
    pub layers: i64,
    /// Attention heads; the width is a multiple of it.
    pub heads: i64,
}

/// A size by name or in full: `base`, or `{ width: 192, layers: 4, heads: 3 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// One of the paper's.
    Named(Named),
    /// Any other.
    Custom(TransformerSize),
}

/// The paper's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Named {
    Tiny,
    Small,
    Base,
    Large,
    Xl,
    Xxl,
    Xxxl,
}

impl Size {
    /// The numbers behind the name.
    pub fn resolve(self) -> TransformerSize {
        let (width, layers, heads) = match self {
            Size::Custom(size) => return size,
            Size::Named(Named::Tiny) => (256, 4, 4),
            Size::Named(Named::Small) => (512, 6, 8),
            Size::Named(Named::Base) => (768, 12, 12),
            Size::Named(Named::Large) => (1024, 24, 16),
            Size::Named(Named::Xl) => (1280, 36, 20),
            Size::Named(Named::Xxl) => (1536, 48, 24),
            Size::Named(Named::Xxxl) => (2560, 48, 40),
        };
        TransformerSize { width, layers, heads }
    }
}
