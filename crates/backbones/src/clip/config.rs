//! Sizes of the published CLIP models.

/// A transformer's sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TowerConfig {
    /// D.
    pub width: i64,
    /// Blocks.
    pub depth: i64,
    /// H.
    pub heads: i64,
}

/// A CLIP model's sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipConfig {
    /// The image tower.
    pub vision: TowerConfig,
    /// Side of the images it takes, in pixels.
    pub image_size: i64,
    /// Side of a patch, in pixels.
    pub patch: i64,
    /// The text tower.
    pub text: TowerConfig,
    /// Entries of the text vocabulary.
    pub vocab_size: i64,
    /// Tokens of a text, with padding.
    pub context: i64,
    /// The token whose place gives the text's feature; the last of the vocabulary.
    pub end_of_text: i64,
    /// P: width of what both towers are projected to.
    pub projection: i64,
}

/// The published models with a ViT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipModel {
    /// ViT-B/32: CLIP scores.
    B32,
    /// ViT-L/14.
    L14,
    /// ViT-L/14 at 336 pixels: CMMD.
    L14At336,
}

impl ClipModel {
    /// All variants.
    pub const ALL: [ClipModel; 3] = [ClipModel::B32, ClipModel::L14, ClipModel::L14At336];

    /// `clip-b32`, `clip-l14`, `clip-l14-336`.
    pub fn name(self) -> &'static str {
        match self {
            ClipModel::B32 => "clip-b32",
            ClipModel::L14 => "clip-l14",
            ClipModel::L14At336 => "clip-l14-336",
        }
    }

    /// Its sizes.
    pub fn config(self) -> ClipConfig {
        let (vision, patch, text, projection) = match self {
            ClipModel::B32 => ((768, 12, 12), 32, (512, 12, 8), 512),
            ClipModel::L14 | ClipModel::L14At336 => ((1024, 24, 16), 14, (768, 12, 12), 768),
        };
        let tower = |(width, depth, heads)| TowerConfig { width, depth, heads };
        ClipConfig {
            vision: tower(vision),
            image_size: if self == ClipModel::L14At336 { 336 } else { 224 },
            patch,
            text: tower(text),
            vocab_size: 49_408,
            context: 77,
            end_of_text: 49_407,
            projection,
        }
    }
}
