//! The metrics of a reconstruction that need no network.

use base::{Images, ImagesU8};
use serde::Serialize;

use crate::{DataRange, Mean, Result, psnr, ssim};

/// Scores of one image, or their means.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairScores {
    /// dB.
    pub psnr: f64,
    /// With the data range that the images have.
    pub ssim: f64,
    /// With the data range of the published figures: see [`DataRange::Published`].
    pub ssim_published: f64,
}

/// Streams pairs and keeps sums.
#[derive(Debug, Clone, Default)]
pub struct Reconstruction {
    psnr: Mean,
    ssim: Mean,
    ssim_published: Mean,
}

impl Reconstruction {
    /// Takes in a batch; returns the scores of each of its images.
    pub fn update(&mut self, reconstruction: &ImagesU8, original: &Images) -> Result<Vec<PairScores>> {
        let psnr = psnr(reconstruction, original)?;
        let unit = ssim(reconstruction, original, DataRange::Unit)?;
        let published = ssim(reconstruction, original, DataRange::Published)?;
        let scores = psnr.iter().zip(unit).zip(published);
        let scores: Vec<PairScores> =
            scores.map(|((&psnr, ssim), ssim_published)| PairScores { psnr, ssim, ssim_published }).collect();
        for s in &scores {
            self.psnr.add(s.psnr);
            self.ssim.add(s.ssim);
            self.ssim_published.add(s.ssim_published);
        }
        Ok(scores)
    }

    /// Takes in all that another has seen.
    pub fn merge(&mut self, other: &Reconstruction) {
        self.psnr.merge(&other.psnr);
        self.ssim.merge(&other.ssim);
        self.ssim_published.merge(&other.ssim_published);
    }

    /// Means over the images so far; `None` before the first.
    pub fn means(&self) -> Option<PairScores> {
        Some(PairScores {
            psnr: self.psnr.value()?,
            ssim: self.ssim.value()?,
            ssim_published: self.ssim_published.value()?,
        })
    }

    /// How many images were compared.
    pub fn count(&self) -> u64 {
        self.psnr.count()
    }
}
