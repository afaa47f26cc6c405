//! Who reads which record: epochs × ranks × batches.

use base::rng;

use crate::{Error, Result};

/// One reader among several that share a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// This reader's number, from 0.
    pub rank: usize,
    /// How many readers there are.
    pub ranks: usize,
}

impl Partition {
    /// A single reader.
    pub const WHOLE: Partition = Partition { rank: 0, ranks: 1 };
}

/// The order in which records are read, and how it is cut into batches.
///
/// Step `k` takes records `k·B·R .. (k+1)·B·R` of the epoch's order (B records a batch, R ranks); rank `r` has the
/// `r`-th B of them. So R ranks with batches of B read what one rank with batches of R·B reads, every rank makes the
/// same number of steps, and no record is read twice. The last step may be short, for the last ranks even empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The number of records.
    pub records: usize,
    /// Records in a batch of one rank.
    pub batch_size: usize,
    /// Decides the order.
    pub seed: u64,
    /// A new random order each epoch, or the stored one.
    pub shuffle: bool,
    /// Leave out the last step of an epoch if it is not full.
    pub drop_last: bool,
    /// This rank.
    pub partition: Partition,
}

impl Schedule {
    /// Checks that at least one step comes out of it.
    pub fn validate(&self) -> Result<()> {
        let Partition { rank, ranks } = self.partition;
        if self.batch_size == 0 || rank >= ranks {
            let message = format!("batch size {}, rank {rank} of {ranks}: nothing to read", self.batch_size);
            return Err(Error::Settings(message));
        }
        if self.steps() == 0 {
            return Err(Error::Settings(format!(
                "{} records do not fill one batch of {} on {ranks} rank(s); use a smaller batch or more data",
                self.records, self.batch_size
            )));
        }
        Ok(())
    }

    /// The number of steps of one epoch.
    pub fn steps(&self) -> usize {
        let global = self.batch_size * self.partition.ranks;
        if self.drop_last { self.records / global } else { self.records.div_ceil(global) }
    }

    /// The record numbers of an epoch in the order of reading: a pure function of `(seed, epoch)`.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        const ORDER: u64 = 0x0D_E12D;
        if self.shuffle {
            rng::permutation(self.seed, &[ORDER, epoch], self.records)
        } else {
            (0..self.records).collect()
        }
    }

    /// This rank's part of step `k` of an epoch whose order is given.
    pub fn batch<'a>(&self, order: &'a [usize], k: usize) -> &'a [usize] {
        let start = (k * self.partition.ranks + self.partition.rank) * self.batch_size;
        let end = (start + self.batch_size).min(order.len());
        &order[start.min(end)..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(records: usize, batch_size: usize, rank: usize, ranks: usize, drop_last: bool) -> Schedule {
        let partition = Partition { rank, ranks };
        Schedule { records, batch_size, seed: 3, shuffle: true, drop_last, partition }
    }

    fn read(s: &Schedule, epoch: u64) -> Vec<usize> {
        let order = s.order(epoch);
        (0..s.steps()).flat_map(|k| s.batch(&order, k).to_vec()).collect()
    }

    #[test]
    fn ranks_cover_every_record_once() {
        for (records, batch, ranks) in [(100, 7, 3), (5, 4, 3), (64, 8, 2), (1, 1, 4)] {
            let mut all: Vec<usize> =
                (0..ranks).flat_map(|r| read(&schedule(records, batch, r, ranks, false), 5)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..records).collect::<Vec<_>>(), "{records} records, {ranks} ranks");
        }
    }

    #[test]
    fn two_ranks_read_what_one_with_a_double_batch_reads() {
        let one = schedule(50, 8, 0, 1, true);
        let two = [schedule(50, 4, 0, 2, true), schedule(50, 4, 1, 2, true)];
        let order = one.order(2);
        for k in 0..one.steps() {
            let joined = [two[0].batch(&order, k), two[1].batch(&order, k)].concat();
            assert_eq!(one.batch(&order, k), joined);
        }
        assert_eq!(one.steps(), two[0].steps());
    }

    #[test]
    fn full_batches_only_when_asked_and_too_little_data_is_refused() {
        let s = schedule(50, 8, 0, 1, true);
        let order = s.order(0);
        assert!((0..s.steps()).all(|k| s.batch(&order, k).len() == 8));
        assert!(schedule(5, 8, 0, 1, true).validate().is_err());
        assert_ne!(s.order(0), s.order(1));
    }
}
