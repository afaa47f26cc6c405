//! CLIP score: similarity of images and their prompts.
//!
//! One quantity under one name, scaled in three ways. All take the cosine of CLIP's embeddings of
//! image and text:
//! - Hessel et al. (CLIPScore, arXiv 2104.08718): 2.5 · max(cos, 0), the text behind "A photo
//!   depicts ";
//! - GigaGAN's and LlamaGen's scripts: cos as it is, the same text;
//! - torchmetrics: 100 · cos of the bare text, the mean clipped at 0.
//!
//! B images, P width of the embeddings

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::math::pixels::to_vec;
use crate::{Error, Mean, Result};

/// Sums over images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ClipScore {
    cosine: Mean,
    clipped: Mean,
    bare: Mean,
}

/// Text before a prompt in all variants but torchmetrics'.
pub const CLIP_PREFIX: &str = "A photo depicts ";

/// Scores of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClipScores {
    /// Hessel et al.
    pub hessel: f64,
    /// GigaGAN, LlamaGen.
    pub cosine: f64,
    /// torchmetrics.
    pub torchmetrics: f64,
}

impl ClipScore {
    /// Adds a batch of embeddings of length 1, (B, P) each: images, their prompts behind
    /// [`CLIP_PREFIX`], and the bare prompts. Returns each image's cosine with its prompt behind
    /// the prefix.
    pub fn update(&mut self, images: &Tensor, prefixed: &Tensor, bare: &Tensor) -> Result<Vec<f64>> {
        let cosines = |texts: &Tensor| -> Result<Vec<f64>> {
            if texts.size() != images.size() {
                return Err(Error::Shape { expected: images.size(), found: texts.size() });
            }
            let products = images.to_kind(Kind::Double) * texts.to_kind(Kind::Double);
            to_vec(&products.sum_dim_intlist([1i64].as_slice(), false, Kind::Double))
        };
        let (with_prefix, without) = (cosines(prefixed)?, cosines(bare)?);
        for (&cosine, bare) in with_prefix.iter().zip(without) {
            self.cosine.add(cosine);
            self.clipped.add(cosine.max(0.0));
            self.bare.add(bare);
        }
        Ok(with_prefix)
    }

    /// Adds the images of another.
    pub fn merge(&mut self, other: &ClipScore) {
        self.cosine.merge(&other.cosine);
        self.clipped.merge(&other.clipped);
        self.bare.merge(&other.bare);
    }

    /// Means over images; `None` before the first.
    pub fn scores(&self) -> Option<ClipScores> {
        Some(ClipScores {
            hessel: 2.5 * self.clipped.value()?,
            cosine: self.cosine.value()?,
            torchmetrics: (100.0 * self.bare.value()?).max(0.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).view([-1, 2])
    }

    #[test]
    fn known_angles_give_known_scores_and_parts_the_whole() {
        let images = rows(&[1.0, 0.0, 0.0, 1.0]);
        let prefixed = rows(&[0.6, 0.8, 0.6, -0.8]); // cosines 0.6 and -0.8
        let bare = rows(&[0.0, 1.0, 1.0, 0.0]); // 0 and 0
        let mut whole = ClipScore::default();
        assert!(whole.scores().is_none());
        let cosines = whole.update(&images, &prefixed, &bare).unwrap();
        assert!((cosines[0] - 0.6).abs() < 1e-7 && (cosines[1] + 0.8).abs() < 1e-7);
        let s = whole.scores().unwrap();
        assert!((s.hessel - 2.5 * 0.3).abs() < 1e-7, "only the positive one counts: {s:?}");
        assert!((s.cosine + 0.1).abs() < 1e-7 && s.torchmetrics == 0.0, "{s:?}");

        let (mut a, mut b) = (ClipScore::default(), ClipScore::default());
        let part = |t: &Tensor, i| t.narrow(0, i, 1);
        a.update(&part(&images, 0), &part(&prefixed, 0), &part(&bare, 0)).unwrap();
        b.update(&part(&images, 1), &part(&prefixed, 1), &part(&bare, 1)).unwrap();
        a.merge(&b);
        assert_eq!(a, whole);
        assert!(whole.update(&images, &rows(&[1.0, 0.0]), &bare).is_err());
    }
}
