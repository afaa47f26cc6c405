//! Distribution of records: epochs × batches, and ranks that take turns by batch.

use base::rng;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One reader among several that share a data set: rank r of R reads batches r, R + r, 2R + r, …
/// of the sequence that a single reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// This reader's number, from 0.
    pub rank: usize,
    /// Number of readers.
    pub ranks: usize,
}

impl Partition {
    /// A single reader.
    pub const WHOLE: Partition = Partition { rank: 0, ranks: 1 };
}

/// The place of the next batch in the data. Saving it and restoring it later continues as if
/// nothing had happened, also with batches of another size or another number of ranks: it counts
/// records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderState {
    /// The epoch of the next batch, from 0.
    pub epoch: u64,
    /// Records of the epoch's order that were read before, by all ranks together.
    pub records: u64,
}

/// The order in which records are read, and how it is cut into batches. The last batch of an epoch
/// may be short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The number of records.
    pub records: usize,
    /// Records in a batch.
    pub batch_size: usize,
    /// Decides the order.
    pub seed: u64,
    /// A new random order each epoch, or the stored one.
    pub shuffle: bool,
    /// Leave out the last batch of an epoch if it is not full.
    pub drop_last: bool,
}

impl Schedule {
    /// Checks that at least one batch comes out of it.
    pub fn validate(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::Settings("batch size 0: nothing to read".into()));
        }
        if self.steps() == 0 {
            return Err(Error::Settings(format!(
                "{} records do not fill one batch of {}; use a smaller batch or more data",
                self.records, self.batch_size
            )));
        }
        Ok(())
    }

    /// The number of batches of one epoch.
    pub fn steps(&self) -> usize {
        match self.drop_last {
            true => self.records / self.batch_size,
            false => self.records.div_ceil(self.batch_size),
        }
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

    /// The batch that begins after `read` records of an epoch whose order is given.
    pub fn batch<'a>(&self, order: &'a [usize], read: u64) -> &'a [usize] {
        let start = (read as usize).min(order.len());
        &order[start..(start + self.batch_size).min(order.len())]
    }

    /// The place of batch `k` of an epoch that is read from its beginning.
    pub fn step(&self, epoch: u64, k: u64) -> LoaderState {
        LoaderState { epoch, records: k * self.batch_size as u64 }
    }

    /// The place `n` batches after `place`.
    pub fn after(&self, place: LoaderState, n: usize) -> LoaderState {
        (0..n).fold(place, |place, _| {
            let records = place.records + self.batch_size as u64;
            self.settled(LoaderState { records, ..place })
        })
    }

    /// A saved place, where reading goes on with these batches: in the next epoch, where what is
    /// left of its own makes no batch.
    ///
    /// # Errors
    /// Returns an error if the place is outside an epoch of these data.
    pub fn place(&self, saved: LoaderState) -> Result<LoaderState> {
        if saved.records > self.records as u64 {
            return Err(Error::Settings(format!(
                "place {} lies outside an epoch of {} records; the data changed since it was saved",
                saved.records, self.records
            )));
        }
        Ok(self.settled(saved))
    }

    fn settled(&self, place: LoaderState) -> LoaderState {
        let left = (self.records as u64).saturating_sub(place.records);
        let least = if self.drop_last { self.batch_size as u64 } else { 1 };
        if left >= least { place } else { LoaderState { epoch: place.epoch + 1, records: 0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(records: usize, batch_size: usize, drop_last: bool) -> Schedule {
        Schedule { records, batch_size, seed: 3, shuffle: true, drop_last }
    }

    #[test]
    fn an_epoch_covers_every_record_once() {
        for (records, batch) in [(100, 7), (5, 4), (64, 8), (1, 1)] {
            let s = schedule(records, batch, false);
            let order = s.order(5);
            let read = |k: usize| s.batch(&order, s.step(5, k as u64).records).to_vec();
            let mut all: Vec<usize> = (0..s.steps()).flat_map(read).collect();
            all.sort_unstable();
            assert_eq!(all, (0..records).collect::<Vec<_>>(), "{records} records");
        }
    }

    /// For any sizes before and after nothing is read twice, and nothing is left out except records
    /// that fill no batch at an epoch's end.
    #[test]
    fn a_place_is_the_same_for_batches_of_any_size() {
        for records in [1usize, 7, 24, 50] {
            for (before, after) in (1..=9).flat_map(|b| (1..=9).map(move |a| (b, a))) {
                for drop_last in [true, false] {
                    let [old, new] = [before, after].map(|b| schedule(records, b, drop_last));
                    if old.validate().is_err() || new.validate().is_err() {
                        continue;
                    }
                    let (mut place, mut read) = (LoaderState::default(), vec![]);
                    for step in 0..60 {
                        let s = if step < 17 { &old } else { &new };
                        if step == 17 {
                            place = new.place(place).unwrap();
                        }
                        let order = s.order(place.epoch);
                        read.extend(s.batch(&order, place.records).iter().map(|r| (place.epoch, *r)));
                        place = s.after(place, 1);
                    }
                    let epochs = read.last().unwrap().0;
                    let most = if drop_last { before.max(after) } else { 1 };
                    for epoch in 0..epochs {
                        let of_epoch = read.iter().filter(|(e, _)| *e == epoch).map(|(_, r)| *r);
                        let of_epoch: Vec<usize> = of_epoch.collect();
                        let expected = &old.order(epoch)[..of_epoch.len()];
                        assert_eq!(of_epoch, expected, "{records} records, {before} then {after}");
                        assert!(of_epoch.len() + most > records, "{records}, {before} then {after}: too few");
                    }
                }
            }
        }
        let s = schedule(12, 5, true);
        assert_eq!(
            s.place(LoaderState { epoch: 3, records: 8 }).unwrap(),
            LoaderState { epoch: 4, records: 0 }
        );
        let error = s.place(LoaderState { epoch: 3, records: 13 }).unwrap_err().to_string();
        assert!(error.contains("13 lies outside an epoch of 12 records"), "{error}");
    }

    #[test]
    fn full_batches_only_when_asked_and_too_little_data_is_refused() {
        let s = schedule(50, 8, true);
        let order = s.order(0);
        assert!((0..s.steps() as u64).all(|k| s.batch(&order, s.step(0, k).records).len() == 8));
        assert!(schedule(5, 8, true).validate().is_err());
        assert_ne!(s.order(0), s.order(1));
    }
}
