//! Sizes of DINOv2 networks.

use serde::{Deserialize, Serialize};

/// The published sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DinoSize {
    /// ViT-S: width 384.
    S,
    /// ViT-B: width 768.
    B,
    /// ViT-L: width 1024; FDD's.
    L,
    /// ViT-g: width 1536.
    G,
}

impl DinoSize {
    /// All variants.
    pub const ALL: [DinoSize; 4] = [DinoSize::S, DinoSize::B, DinoSize::L, DinoSize::G];

    fn letter(self) -> char {
        match self {
            DinoSize::S => 's',
            DinoSize::B => 'b',
            DinoSize::L => 'l',
            DinoSize::G => 'g',
        }
    }

    /// `dinov2-s14`, `dinov2-s14-reg`, …
    pub fn name(self, registers: bool) -> String {
        format!("dinov2-{}14{}", self.letter(), if registers { "-reg" } else { "" })
    }
}

/// Feed-forward part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedForward {
    /// Two layers with an exact GELU between them.
    Mlp {
        /// Width between the layers.
        hidden: i64,
    },
    /// `w3 (silu(gate) · value)`, gate and value in one layer `w12`.
    SwiGlu {
        /// Width of gate and value.
        hidden: i64,
    },
}

/// Resampling of the learned grid of positions to the image's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// Bicubic (a = -0.75), no antialias, with the scale `(h + offset)/37` in the coordinates:
    /// models without registers, offset 0.1.
    Scaled {
        /// Added to the number of patches.
        offset: f64,
    },
    /// Antialiased bicubic (a = -0.5) to the exact size: models with registers, and GigaTok's
    /// teacher.
    Antialiased,
}

/// A DINOv2 network's sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct DinoConfig {
    /// D.
    pub width: i64,
    /// Blocks.
    pub depth: i64,
    /// H.
    pub heads: i64,
    /// Side of a patch, in pixels.
    pub patch: i64,
    /// Side of the images whose grid the positions were learned on.
    pub image_size: i64,
    /// R.
    pub registers: i64,
    /// Between attentions.
    pub feed_forward: FeedForward,
    /// For other grids than the learned one.
    pub positions: Positions,
}

impl DinoConfig {
    /// A published network.
    pub fn published(size: DinoSize, registers: bool) -> Self {
        let (width, depth, heads) = match size {
            DinoSize::S => (384, 12, 6),
            DinoSize::B => (768, 12, 12),
            DinoSize::L => (1024, 24, 16),
            DinoSize::G => (1536, 40, 24),
        };
        DinoConfig {
            width,
            depth,
            heads,
            patch: 14,
            image_size: 518,
            registers: if registers { 4 } else { 0 },
            feed_forward: match size {
                DinoSize::G => FeedForward::SwiGlu { hidden: 4096 },
                _ => FeedForward::Mlp { hidden: 4 * width },
            },
            positions: if registers { Positions::Antialiased } else { Positions::Scaled { offset: 0.1 } },
        }
    }
}
