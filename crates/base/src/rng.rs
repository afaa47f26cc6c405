//! Counter-based randomness: every number is a pure function of what it is for.
//!
//! SplitMix64's finaliser hashes `(seed, stream, counter)`. Image 17 is then image 17 at any batch
//! size, on any number of ranks and after any restart, and nothing needs to be saved to resume.

/// SplitMix64's output function (Steele et al., 2014).
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A 64-bit hash of a seed and any number of counters, each stirred in in turn.
pub fn hash(seed: u64, counters: &[u64]) -> u64 {
    counters.iter().fold(mix(seed.wrapping_add(GOLDEN)), |h, &c| {
        mix(h.wrapping_mul(GOLDEN) ^ c.wrapping_add(GOLDEN).wrapping_mul(0xD1B5_4A32_D192_ED03))
    })
}

/// A uniform double in [0, 1) with 53 random bits.
pub fn uniform(seed: u64, counters: &[u64]) -> f64 {
    (hash(seed, counters) >> 11) as f64 / (1u64 << 53) as f64
}

/// A uniform integer in `0..n` (n > 0), by multiplication; the bias is below n / 2^64.
pub fn below(seed: u64, counters: &[u64], n: u64) -> u64 {
    ((u128::from(hash(seed, counters)) * u128::from(n)) >> 64) as u64
}

/// A permutation of `0..n` as a pure function of the counters (Fisher–Yates).
pub fn permutation(seed: u64, counters: &[u64], n: usize) -> Vec<usize> {
    let key = hash(seed, counters);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(key, &[i as u64], i as u64 + 1) as usize);
    }
    order
}

/// The random numbers of one generated image: a uniform for each step, from `(seed, index)` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleStream {
    /// The run's seed.
    pub seed: u64,
    /// The image's index in the run.
    pub index: u64,
}

impl SampleStream {
    /// The uniform in [0, 1) that decides code number `step`.
    pub fn uniform(self, step: u64) -> f64 {
        uniform(self.seed, &[0x5A3B_1E0F, self.index, step])
    }

    /// The random numbers of all codes that could come at number `step`.
    pub fn codes(self, step: u64) -> CodeStream {
        CodeStream { key: hash(self.seed, &[0x6B3D_09C1, self.index, step]) }
    }
}

/// A uniform for every code that could come at one place of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeStream {
    key: u64,
}

impl CodeStream {
    /// The uniform of `code`, strictly between 0 and 1.
    pub fn uniform(self, code: u64) -> f64 {
        let bits = mix(self.key.wrapping_add((code + 1).wrapping_mul(GOLDEN))) >> 11;
        (bits as f64 + 0.5) / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_holds_every_index_once() {
        let mut p = permutation(7, &[1, 2], 1000);
        assert_ne!(p, (0..1000).collect::<Vec<_>>());
        p.sort_unstable();
        assert_eq!(p, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn uniforms_are_uniform_and_streams_differ() {
        let n = 20_000;
        let mean = (0..n).map(|i| SampleStream { seed: 1, index: i }.uniform(3)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        assert_ne!(
            SampleStream { seed: 1, index: 0 }.uniform(0),
            SampleStream { seed: 1, index: 1 }.uniform(0)
        );
        assert_ne!(
            SampleStream { seed: 1, index: 0 }.uniform(0),
            SampleStream { seed: 2, index: 0 }.uniform(0)
        );
    }
}
