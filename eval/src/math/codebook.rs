//! Usage of a tokenizer's codebook.

use base::Codes;
use serde::{Deserialize, Serialize};

use crate::math::features::at_least;
use crate::{Error, Mean, Result};

/// Number of times that each code occurred.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CodebookUsage {
    counts: Vec<u64>,
    per_image: Mean,
}

/// Scores of the counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CodebookScores {
    /// Entries of the codebook.
    pub codebook_size: u64,
    /// Distinct codes that occurred.
    pub used: u64,
    /// Codes that never did.
    pub dead: u64,
    /// `used / codebook_size`: "codebook usage" of GigaTok and LlamaGen.
    pub usage: f64,
    /// Entropy of the codes in nats.
    pub entropy_nats: f64,
    /// In bits.
    pub entropy_bits: f64,
    /// `exp(entropy)`.
    pub perplexity: f64,
    /// With 1e-10 inside the logarithm, as in VQ-VAE's code.
    pub perplexity_vqvae: f64,
    /// Bits with 1e-8 inside the logarithm, as TiTok's evaluator has it.
    pub entropy_bits_titok: f64,
    /// Mean share of the codebook that one image uses.
    pub usage_per_image: f64,
}

impl CodebookUsage {
    /// Usage before the first image of a codebook with `codebook_size` entries.
    pub fn new(codebook_size: i64) -> Self {
        CodebookUsage {
            counts: vec![0; usize::try_from(codebook_size).unwrap_or(0)],
            per_image: Mean::default(),
        }
    }

    /// Adds codes (B, N).
    pub fn update(&mut self, codes: &Codes) -> Result<()> {
        if let Some((low, high)) = codes.range()
            && (low < 0 || high >= self.counts.len() as i64)
        {
            let size = self.counts.len() as i64;
            return Err(Error::CodeRange { code: if low < 0 { low } else { high }, size });
        }
        let (images, _) = codes.tensor().size2()?;
        for image in 0..images {
            let row = Vec::<i64>::try_from(codes.tensor().get(image))?;
            for &code in &row {
                self.counts[code as usize] += 1;
            }
            let distinct: std::collections::HashSet<i64> = row.into_iter().collect();
            self.per_image.add(distinct.len() as f64 / self.counts.len() as f64);
        }
        Ok(())
    }

    /// Adds the codes of other images.
    pub fn merge(&mut self, other: &CodebookUsage) -> Result<()> {
        let (expected, found) = (self.counts.len() as i64, other.counts.len() as i64);
        if expected != found {
            return Err(Error::Count { what: "codebook entries", expected, found });
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.per_image.merge(&other.per_image);
        Ok(())
    }

    /// Number of times that each code occurred.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The scores; needs one image.
    pub fn scores(&self) -> Result<CodebookScores> {
        let usage_per_image = self.per_image.value();
        at_least("codebook usage", 1, self.per_image.count() as i64)?;
        let total: u64 = self.counts.iter().sum();
        let p = || self.counts.iter().map(|&c| c as f64 / total as f64);
        let used = self.counts.iter().filter(|&&c| c > 0).count() as u64;
        let codebook_size = self.counts.len() as u64;
        let entropy: f64 = -p().filter(|&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>();
        let with = |epsilon: f64| -p().map(|p| p * (p + epsilon).ln()).sum::<f64>();
        Ok(CodebookScores {
            codebook_size,
            used,
            dead: codebook_size - used,
            usage: used as f64 / codebook_size as f64,
            entropy_nats: entropy,
            entropy_bits: entropy / std::f64::consts::LN_2,
            perplexity: entropy.exp(),
            perplexity_vqvae: with(1e-10).exp(),
            entropy_bits_titok: with(1e-8) / std::f64::consts::LN_2,
            usage_per_image: usage_per_image.unwrap_or(0.0),
        })
    }
}
