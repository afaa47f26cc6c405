//! Counts of values in bins of one width.

use serde::{Deserialize, Serialize};

/// Counts of values in bins of one width.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Histogram {
    /// Lower edge of the first bin.
    pub low: f64,
    /// Upper edge of the last bin; values beyond it are counted in that bin.
    pub high: f64,
    /// Number of values in each bin.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Forty empty bins.
    pub fn new(low: f64, high: f64) -> Self {
        const BINS: usize = 40;
        Histogram { low, high, counts: vec![0; BINS] }
    }

    /// Counts a value; infinite ones are ignored.
    pub fn add(&mut self, value: f64) {
        if value.is_finite() {
            let bins = self.counts.len() as f64;
            let at = ((value - self.low) / (self.high - self.low) * bins).floor().clamp(0.0, bins - 1.0);
            self.counts[at as usize] += 1;
        }
    }

    /// Adds the counts of another histogram with the same bins.
    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }
}
