//! The interface of a tokenizer, and what passes through it.

use base::{Codes, Images};
use tch::Tensor;

use crate::error::Result;
use crate::quantizer::QuantizerLosses;

/// The arrangement of an image's codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeLayout {
    /// A sequence in learned order.
    Sequence {
        /// Number of codes.
        len: i64,
    },
    /// The image grid, row by row.
    Grid {
        /// Rows.
        height: i64,
        /// Columns.
        width: i64,
    },
}

/// Sizes of a tokenizer's images and codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerSpec {
    /// Number of different codes.
    pub codebook_size: i64,
    /// Width of a code vector.
    pub code_dim: i64,
    /// Codes of one image.
    pub num_tokens: i64,
    /// Side of the square images, pixels.
    pub image_size: i64,
    /// Their arrangement.
    pub layout: CodeLayout,
    /// Whether other sizes go as well: square images whose side is a multiple of the patch.
    pub any_size: bool,
}

impl TokenizerSpec {
    /// Side of the images that so many codes make, if the tokenizer can make such.
    pub fn image_size_of(&self, num_tokens: i64) -> Option<i64> {
        if num_tokens == self.num_tokens {
            return Some(self.image_size);
        }
        let CodeLayout::Grid { width, .. } = self.layout else { return None };
        let side = (num_tokens as f64).sqrt().round() as i64;
        (self.any_size && side * side == num_tokens).then(|| self.image_size / width * side)
    }
}

/// Activations before the quantizer.
#[derive(Debug)]
pub struct Latents {
    /// CNN features (B, Z, h, w).
    pub cnn: Tensor,
    /// Features of the frozen vision network (B, C, h, w), where there is one.
    pub vision: Option<Tensor>,
    /// Encoder features (B, N, W): after `ln_post`, before the projection to the codes (for
    /// probing).
    pub features: Tensor,
    /// `features` after the encoder's output projection, (B, N, Z).
    pub projected: Tensor,
    /// Input of the quantizer, (B, N, D), not normalised.
    pub pre_quantized: Tensor,
}

/// A training pass.
#[derive(Debug)]
pub struct TrainOutput {
    /// (B, 3, H, W), not clamped.
    pub reconstruction: Tensor,
    /// The reconstruction that bypasses transformers and quantizer, if asked for.
    pub direct: Option<Tensor>,
    /// (B, N) int64.
    pub codes: Tensor,
    /// The quantizer's loss terms.
    pub losses: QuantizerLosses,
    /// CNN encoder output (B, Z, h, w).
    pub cnn_features: Tensor,
    /// Features of the frozen vision network (B, C, h, w), where there is one.
    pub vision: Option<Tensor>,
    /// Decoder transformer output, which feeds the CNN decoder, (B, Z, h, w).
    pub decoder_features: Tensor,
    /// The aligned layer, projected to the teacher's width, (B, P, teacher width).
    pub aligned: Option<Tensor>,
}

/// Images ⇄ codes.
pub trait Tokenizer {
    /// Sizes of its images and codes.
    fn spec(&self) -> &TokenizerSpec;
    /// (B, 3, H, W) → (B, N).
    ///
    /// # Errors
    /// Returns an error if the images have another size, an encoder output is not finite, or
    /// libtorch fails.
    fn encode(&self, images: &Images) -> Result<Codes>;
    /// (B, N) → (B, 3, H, W), not clamped.
    ///
    /// # Errors
    /// Returns an error if the number of codes is wrong, a code is out of range, a decoded image is
    /// not finite, or libtorch fails.
    fn decode(&self, codes: &Codes) -> Result<Images>;
    /// (B, 3, H, W) → (B, N, D): the quantizer's input.
    ///
    /// # Errors
    /// Returns an error as [`Tokenizer::encode`] does.
    fn features(&self, images: &Images) -> Result<Tensor>;
}
