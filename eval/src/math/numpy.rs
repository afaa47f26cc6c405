//! Random orders as NumPy's legacy `RandomState` draws them: public evaluation code shuffles with
//! it.

use rand_mt::Mt;

/// NumPy's `RandomState` of one seed.
#[derive(Debug)]
pub struct RandomState(Mt);

impl RandomState {
    /// `numpy.random.RandomState(seed)`.
    pub fn new(seed: u32) -> Self {
        RandomState(Mt::new(seed))
    }

    /// `permutation(n)`: Fisher–Yates from the end, each index drawn by masking and rejection.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.at_most(i as u32) as usize);
        }
        order
    }

    /// `choice(n, size, replace=False)`.
    pub fn choice(&mut self, n: usize, size: usize) -> Vec<usize> {
        let mut order = self.permutation(n);
        order.truncate(size);
        order
    }

    /// Uniform in `0..=max`.
    fn at_most(&mut self, max: u32) -> u32 {
        let mask = u32::MAX.checked_shr(max.leading_zeros()).unwrap_or(0);
        loop {
            let value = self.0.next_u32() & mask;
            if value <= max {
                return value;
            }
        }
    }
}

/// `RandomState(seed).permutation(n)`.
pub fn permutation(seed: u32, n: usize) -> Vec<usize> {
    RandomState::new(seed).permutation(n)
}
