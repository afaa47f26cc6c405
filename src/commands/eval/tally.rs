//! What a run gathers beside features: sums, counts and some images to look at.

use std::collections::BTreeMap;

use anyhow::Result;
use eval::{ClassAgreement, ClipScore, CodebookUsage, Likelihood, Mean, Reconstruction};
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::thumbs::Gallery;
use crate::inputs::Skipped;

/// One side of the comparison.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Side {
    /// Images that were scored.
    pub images: u64,
    /// Of their names and pixels.
    pub digest: Digest,
    /// Images whose files hold something else than 8-bit RGB: what, and how many.
    pub converted: BTreeMap<String, u64>,
}

/// Scores of the pairs of one class.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ClassScores {
    /// Images.
    pub images: u64,
    /// dB; without identical pairs.
    pub psnr: Mean,
    /// Structural similarity.
    pub ssim: Mean,
    /// LPIPS.
    pub lpips: Mean,
    /// Distance by EfficientNet-Lite's features.
    pub perceptual: Mean,
    /// How well a transformer predicts the codes.
    pub likelihood: Likelihood,
}

impl ClassScores {
    fn merge(&mut self, other: &ClassScores) {
        self.images += other.images;
        self.psnr.merge(&other.psnr);
        self.ssim.merge(&other.ssim);
        self.lpips.merge(&other.lpips);
        self.perceptual.merge(&other.perceptual);
        self.likelihood.merge(&other.likelihood);
    }
}

/// Counts of values in bins of one width.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Histogram {
    /// Where the first bin begins.
    pub low: f64,
    /// Where the last ends; what lies beyond is counted in it.
    pub high: f64,
    /// How many.
    pub counts: Vec<u64>,
}

impl Histogram {
    fn new(low: f64, high: f64) -> Self {
        const BINS: usize = 40;
        Histogram { low, high, counts: vec![0; BINS] }
    }

    /// Counts a value; infinite ones are left out.
    pub fn add(&mut self, value: f64) {
        if value.is_finite() {
            let bins = self.counts.len() as f64;
            let at = ((value - self.low) / (self.high - self.low) * bins).floor().clamp(0.0, bins - 1.0);
            self.counts[at as usize] += 1;
        }
    }

    fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }
}

/// What is gathered beside features: all of it plain numbers and texts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tally {
    /// Images of each phase that are done, skipped ones included.
    pub done: BTreeMap<String, u64>,
    /// What is judged.
    pub samples: Side,
    /// What it is compared with.
    pub reference: Side,
    /// PSNR and SSIM.
    pub pairs: Reconstruction,
    /// LPIPS.
    pub lpips: Mean,
    /// Distance by EfficientNet-Lite's features.
    pub perceptual: Mean,
    /// How the scores of single images are spread.
    pub spread: BTreeMap<String, Histogram>,
    /// Scores by class.
    pub classes: BTreeMap<i64, ClassScores>,
    /// How the codebook is used.
    pub codebook: Option<CodebookUsage>,
    /// How well a transformer predicts the codes.
    pub likelihood: Likelihood,
    /// How well images suit their prompts.
    pub clip_score: ClipScore,
    /// Whether a classifier names images right.
    pub agreement: Option<ClassAgreement>,
    /// The same of the reference's images.
    pub reference_agreement: Option<ClassAgreement>,
    /// What could not be read.
    pub skipped: Vec<Skipped>,
    /// Some images to look at.
    pub gallery: Gallery,
}

impl Tally {
    /// Before the first image.
    pub fn new() -> Self {
        let spread = [("psnr", 0.0, 60.0), ("ssim", 0.0, 1.0), ("lpips", 0.0, 1.0), ("perceptual", 0.0, 2.0)];
        let spread = spread.map(|(name, low, high)| (name.to_owned(), Histogram::new(low, high)));
        Tally {
            done: BTreeMap::new(),
            samples: Side::default(),
            reference: Side::default(),
            pairs: Reconstruction::default(),
            lpips: Mean::default(),
            perceptual: Mean::default(),
            spread: spread.into(),
            classes: BTreeMap::new(),
            codebook: None,
            likelihood: Likelihood::default(),
            clip_score: ClipScore::default(),
            agreement: None,
            reference_agreement: None,
            skipped: vec![],
            gallery: Gallery::default(),
        }
    }

    /// Takes in another part's.
    pub fn merge(&mut self, other: Tally) -> Result<()> {
        for (phase, n) in other.done {
            *self.done.entry(phase).or_default() += n;
        }
        self.samples.merge(&other.samples);
        self.reference.merge(&other.reference);
        self.pairs.merge(&other.pairs);
        self.lpips.merge(&other.lpips);
        self.perceptual.merge(&other.perceptual);
        for (name, histogram) in &other.spread {
            if let Some(mine) = self.spread.get_mut(name) {
                mine.merge(histogram);
            }
        }
        for (class, theirs) in other.classes {
            self.classes.entry(class).or_default().merge(&theirs);
        }
        match (&mut self.codebook, other.codebook) {
            (Some(mine), Some(theirs)) => mine.merge(&theirs)?,
            (mine @ None, theirs) => *mine = theirs,
            _ => {}
        }
        self.likelihood.merge(&other.likelihood);
        self.clip_score.merge(&other.clip_score);
        merge_agreement(&mut self.agreement, other.agreement);
        merge_agreement(&mut self.reference_agreement, other.reference_agreement);
        self.skipped.extend(other.skipped);
        self.gallery.merge(other.gallery);
        Ok(())
    }
}

fn merge_agreement(mine: &mut Option<ClassAgreement>, theirs: Option<ClassAgreement>) {
    match (mine, theirs) {
        (Some(mine), Some(theirs)) => mine.merge(&theirs),
        (mine @ None, theirs) => *mine = theirs,
        (Some(_), None) => {}
    }
}

impl Side {
    fn merge(&mut self, other: &Side) {
        self.images += other.images;
        self.digest.add(other.digest);
        for (what, n) in &other.converted {
            *self.converted.entry(what.clone()).or_default() += n;
        }
    }
}
