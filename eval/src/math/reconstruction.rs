//! The metrics of a reconstruction that need no network.

use serde::{Deserialize, Serialize};

use crate::{DataRange, Mean, PixelPair, Result, Window, psnr, ssim};

/// Metrics beside PSNR, which costs nothing beside them and is always computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelMetrics {
    /// SSIM with the data range that the images have.
    pub ssim: bool,
    /// SSIM with the data range of the published figures: see [`DataRange::Published`].
    pub ssim_published: bool,
}

impl PixelMetrics {
    /// PSNR and both SSIMs.
    pub const ALL: PixelMetrics = PixelMetrics { ssim: true, ssim_published: true };
}

/// Scores of one image, or their means.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairScores {
    /// dB.
    pub psnr: f64,
    /// With the data range that the images have, where it was asked for.
    pub ssim: Option<f64>,
    /// With the data range of the published figures, where it was asked for.
    pub ssim_published: Option<f64>,
}

impl PairScores {
    /// Scores of each pair of a batch.
    ///
    /// # Errors
    /// Returns an error if the images are smaller than SSIM's window.
    pub fn of(pair: &PixelPair, metrics: PixelMetrics) -> Result<Vec<PairScores>> {
        let psnr = psnr(pair)?;
        let similarity = |wanted: bool, range| match wanted {
            true => ssim(pair, range, Window::Uniform).map(|all| all.into_iter().map(Some).collect()),
            false => Ok(vec![None; psnr.len()]),
        };
        let unit: Vec<Option<f64>> = similarity(metrics.ssim, DataRange::Unit)?;
        let published = similarity(metrics.ssim_published, DataRange::Published)?;
        let scores = psnr.iter().zip(unit).zip(published);
        Ok(scores.map(|((&psnr, ssim), ssim_published)| PairScores { psnr, ssim, ssim_published }).collect())
    }
}

/// Streams pairs and keeps sums.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reconstruction {
    count: u64,
    psnr: Mean,
    ssim: Mean,
    ssim_published: Mean,
}

impl Reconstruction {
    /// Adds a batch; returns the scores of each of its images.
    pub fn update(&mut self, pair: &PixelPair, metrics: PixelMetrics) -> Result<Vec<PairScores>> {
        let scores = PairScores::of(pair, metrics)?;
        self.add(&scores);
        Ok(scores)
    }

    /// Adds the scores of single images.
    pub fn add(&mut self, scores: &[PairScores]) {
        for s in scores {
            self.count += 1;
            // One perfect pair would make the mean infinite: it is counted, see `identical`.
            if s.psnr.is_finite() {
                self.psnr.add(s.psnr);
            }
            s.ssim.into_iter().for_each(|x| self.ssim.add(x));
            s.ssim_published.into_iter().for_each(|x| self.ssim_published.add(x));
        }
    }

    /// Adds the pairs of another.
    pub fn merge(&mut self, other: &Reconstruction) {
        self.count += other.count;
        self.psnr.merge(&other.psnr);
        self.ssim.merge(&other.ssim);
        self.ssim_published.merge(&other.ssim_published);
    }

    /// Means over the images so far, PSNR's without identical pairs (infinite if there are no
    /// others); `None` before the first.
    pub fn means(&self) -> Option<PairScores> {
        (self.count > 0).then(|| PairScores {
            ssim: self.ssim.value(),
            ssim_published: self.ssim_published.value(),
            psnr: self.psnr.value().unwrap_or(f64::INFINITY),
        })
    }

    /// Number of images compared.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of images that equal their original in every pixel.
    pub fn identical(&self) -> u64 {
        self.count - self.psnr.count()
    }
}
