//! The metrics of a reconstruction that need no network.

use serde::{Deserialize, Serialize};

use crate::{DataRange, Mean, PixelPair, Result, Window, psnr, ssim};

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
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reconstruction {
    psnr: Mean,
    ssim: Mean,
    ssim_published: Mean,
}

impl Reconstruction {
    /// Takes in a batch; returns the scores of each of its images.
    pub fn update(&mut self, pair: &PixelPair) -> Result<Vec<PairScores>> {
        let psnr = psnr(pair)?;
        let unit = ssim(pair, DataRange::Unit, Window::Uniform)?;
        let published = ssim(pair, DataRange::Published, Window::Uniform)?;
        let scores = psnr.iter().zip(unit).zip(published);
        let scores: Vec<PairScores> =
            scores.map(|((&psnr, ssim), ssim_published)| PairScores { psnr, ssim, ssim_published }).collect();
        for s in &scores {
            // One perfect pair would make the mean infinite: it is counted, see `identical`.
            if s.psnr.is_finite() {
                self.psnr.add(s.psnr);
            }
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

    /// Means over the images so far, PSNR's without identical pairs (infinite if there are no others); `None` before
    /// the first.
    pub fn means(&self) -> Option<PairScores> {
        Some(PairScores {
            ssim: self.ssim.value()?,
            ssim_published: self.ssim_published.value()?,
            psnr: self.psnr.value().unwrap_or(f64::INFINITY),
        })
    }

    /// How many images were compared.
    pub fn count(&self) -> u64 {
        self.ssim.count()
    }

    /// How many of them equal their original in every pixel.
    pub fn identical(&self) -> u64 {
        self.ssim.count() - self.psnr.count()
    }
}
