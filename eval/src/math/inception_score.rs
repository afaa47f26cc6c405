//! Inception Score (Salimans et al., 2016): over chunks of images, `exp(E KL(p(y|x) ‖ p(y)))`.
//!
//! Only sums of a chunk are kept, so the logits of 50,000 images need no memory, and parts merge
//! exactly.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::math::features::{at_least, rows, same_dimension};
use crate::math::numpy::permutation;
use crate::{Error, Result};

/// Chunks of rows. The published variants differ in nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Splits {
    /// Consecutive rows; ADM's evaluator takes 5,000 in file order, the last chunk may be short.
    OfSize(u64),
    /// So many chunks of almost one size, in file order.
    InOrder {
        /// All rows.
        rows: u64,
        /// Chunks.
        splits: u64,
    },
    /// The same of rows in the order of NumPy's `RandomState(2020).permutation`: torch-fidelity.
    Shuffled {
        /// The place of each row in that order.
        place: Vec<u64>,
        /// Chunks.
        splits: u64,
    },
}

/// ADM's chunk.
pub const ADM_SPLIT_SIZE: u64 = 5000;
/// torch-fidelity's seed.
pub const FIDELITY_SEED: u32 = 2020;
/// torch-fidelity's number of chunks.
pub const FIDELITY_SPLITS: u64 = 10;

impl Splits {
    /// torch-fidelity's chunks of `rows` rows.
    pub fn fidelity(rows: u64, splits: u64) -> Self {
        let mut place = vec![0; rows as usize];
        for (at, row) in permutation(FIDELITY_SEED, rows as usize).into_iter().enumerate() {
            place[row] = at as u64;
        }
        Splits::Shuffled { place, splits }
    }

    /// The chunk of row `index`.
    pub fn chunk(&self, index: u64) -> u64 {
        match self {
            Splits::OfSize(size) => index / size,
            Splits::InOrder { rows, splits } => chunk_between(index, *rows, *splits),
            Splits::Shuffled { place, splits } => {
                chunk_between(place[index as usize], place.len() as u64, *splits)
            }
        }
    }
}

/// The chunk whose bounds `i * rows / splits` hold a place.
fn chunk_between(place: u64, rows: u64, splits: u64) -> u64 {
    let guess = place * splits / rows.max(1);
    (guess..splits).rev().find(|i| i * rows / splits <= place).unwrap_or(guess)
}

/// Sums over one chunk.
#[derive(Debug)]
struct Chunk {
    n: u64,
    /// `Σ p log p`.
    negentropy: f64,
    /// `Σ p` (K).
    probabilities: Tensor,
}

/// The score so far.
#[derive(Debug, Default)]
pub struct InceptionScore {
    chunks: BTreeMap<u64, Chunk>,
}

/// The score.
#[derive(Debug, Clone, PartialEq)]
pub struct InceptionScores {
    /// Unweighted mean over the chunks.
    pub mean: f64,
    /// Population standard deviation over the chunks.
    pub std: f64,
    /// Each chunk's, in order.
    pub chunks: Vec<f64>,
}

impl InceptionScore {
    /// Adds logits (B, K), bias-free, each with its chunk.
    pub fn update(&mut self, logits: &Tensor, chunks: &[u64]) -> Result<()> {
        let logits = rows(logits)?;
        let (n, k) = logits.size2()?;
        if chunks.len() as i64 != n {
            return Err(Error::Count { what: "chunks of logits", expected: n, found: chunks.len() as i64 });
        }
        let log_p = logits.log_softmax(1, Kind::Double);
        let p = log_p.exp();
        let negentropy =
            Vec::<f64>::try_from((&p * log_p).sum_dim_intlist([1i64].as_slice(), false, Kind::Double))?;
        for (row, (&chunk, negentropy)) in chunks.iter().zip(negentropy).enumerate() {
            let part = Chunk { n: 1, negentropy, probabilities: p.get(row as i64) };
            self.add(chunk, k, part)?;
        }
        Ok(())
    }

    fn add(&mut self, index: u64, classes: i64, part: Chunk) -> Result<()> {
        match self.chunks.get_mut(&index) {
            Some(chunk) => {
                same_dimension(chunk.probabilities.numel() as i64, classes)?;
                chunk.n += part.n;
                chunk.negentropy += part.negentropy;
                chunk.probabilities += part.probabilities;
            }
            None => {
                let probabilities = part.probabilities.copy();
                self.chunks.insert(index, Chunk { probabilities, ..part });
            }
        }
        Ok(())
    }

    /// Adds the rows of another.
    pub fn merge(&mut self, other: &InceptionScore) -> Result<()> {
        for (&index, c) in &other.chunks {
            let part = Chunk { n: c.n, negentropy: c.negentropy, probabilities: c.probabilities.copy() };
            self.add(index, c.probabilities.numel() as i64, part)?;
        }
        Ok(())
    }

    /// The score; needs one image.
    pub fn scores(&self) -> Result<InceptionScores> {
        at_least("the Inception Score", 1, self.chunks.len() as i64)?;
        let chunks: Vec<f64> = self.chunks.values().map(Chunk::score).collect();
        let (mean, std) = mean_and_std(&chunks);
        Ok(InceptionScores { mean, std, chunks })
    }

    /// Sums as stored: chunk numbers, counts, negative entropies (C each) and probabilities (C, K).
    pub(crate) fn parts(&self) -> Option<[Tensor; 4]> {
        let all: Vec<&Chunk> = self.chunks.values().collect();
        if all.is_empty() {
            return None;
        }
        let numbers: Vec<i64> = self.chunks.keys().map(|&k| k as i64).collect();
        let counts: Vec<i64> = all.iter().map(|c| c.n as i64).collect();
        let negentropies: Vec<f64> = all.iter().map(|c| c.negentropy).collect();
        let probabilities: Vec<&Tensor> = all.iter().map(|c| &c.probabilities).collect();
        Some([
            Tensor::from_slice(&numbers),
            Tensor::from_slice(&counts),
            Tensor::from_slice(&negentropies),
            Tensor::stack(&probabilities, 0),
        ])
    }

    /// The score of the sums of [`InceptionScore::parts`].
    pub(crate) fn from_parts([numbers, counts, negentropies, probabilities]: [Tensor; 4]) -> Result<Self> {
        let numbers = Vec::<i64>::try_from(numbers)?;
        let counts = Vec::<i64>::try_from(counts)?;
        let negentropies = Vec::<f64>::try_from(negentropies)?;
        let (n, _) = probabilities.size2()?;
        for found in [counts.len(), negentropies.len(), n as usize] {
            if found != numbers.len() {
                let (expected, found) = (numbers.len() as i64, found as i64);
                return Err(Error::Count { what: "chunks of the Inception Score", expected, found });
            }
        }
        let chunk = |(row, (n, negentropy)): (usize, (i64, f64))| Chunk {
            n: n as u64,
            negentropy,
            probabilities: probabilities.get(row as i64).copy(),
        };
        let chunks = counts.into_iter().zip(negentropies).enumerate().map(chunk);
        Ok(InceptionScore { chunks: numbers.into_iter().map(|k| k as u64).zip(chunks).collect() })
    }
}

impl Chunk {
    /// `exp(Σ p log p / n - Σ_k p̄ log p̄)`; 0 log 0 is 0.
    fn score(&self) -> f64 {
        let mean = &self.probabilities / self.n as f64;
        let entropy = mean.xlogy(&mean).sum(Kind::Double).double_value(&[]);
        (self.negentropy / self.n as f64 - entropy).exp()
    }
}

/// The score of logits at hand (N, K), in file order.
pub fn inception_score(logits: &Tensor, splits: &Splits) -> Result<InceptionScores> {
    let chunks: Vec<u64> = (0..logits.size()[0] as u64).map(|i| splits.chunk(i)).collect();
    let mut score = InceptionScore::default();
    score.update(logits, &chunks)?;
    score.scores()
}

/// Mean and population standard deviation.
pub(crate) fn mean_and_std(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
}
