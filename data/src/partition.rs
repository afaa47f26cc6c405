//! Distribution of records: epochs × ranks × batches.

use base::rng;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One reader among several that share a data set. Training has one process so far, so that every
/// reader is [`Partition::WHOLE`].
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

/// The place of the next step in the data. Saving it and restoring it later continues as if nothing
/// had happened, also with batches of another size: it counts records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderState {
    /// The epoch of the next step, from 0.
    pub epoch: u64,
    /// Records of the epoch's order that were read before, by all ranks together.
    pub records: u64,
}

/// The order in which records are read, and how it is cut into batches.
///
/// A step takes the next B·R records of the epoch's order (B records a batch, R ranks); rank `r`
/// has the `r`-th B of them. So R ranks with batches of B read what one rank with batches of R·B
/// reads, every rank makes the same number of steps, and no record is read twice. The last step may
/// be short, for the last ranks even empty.
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

    /// This rank's part of the step that begins after `read` records of an epoch whose order is
    /// given.
    pub fn batch<'a>(&self, order: &'a [usize], read: u64) -> &'a [usize] {
        let start = read as usize + self.partition.rank * self.batch_size;
        let end = (start + self.batch_size).min(order.len());
        &order[start.min(end)..end]
    }

    /// The place of step `k` of an epoch that is read from its beginning.
    pub fn step(&self, epoch: u64, k: u64) -> LoaderState {
        LoaderState { epoch, records: k * self.in_a_step() }
    }

    /// The place after the step at `place`.
    pub fn following(&self, place: LoaderState) -> LoaderState {
        self.settled(LoaderState { records: place.records + self.in_a_step(), ..place })
    }

    /// A saved place, where reading goes on with these batches: in the next epoch, where what is
    /// left of its own makes no step.
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

    fn in_a_step(&self) -> u64 {
        (self.batch_size * self.partition.ranks) as u64
    }

    fn settled(&self, place: LoaderState) -> LoaderState {
        let left = (self.records as u64).saturating_sub(place.records);
        let least = if self.drop_last { self.in_a_step() } else { 1 };
        if left >= least { place } else { LoaderState { epoch: place.epoch + 1, records: 0 } }
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
        (0..s.steps()).flat_map(|k| s.batch(&order, s.step(epoch, k as u64).records).to_vec()).collect()
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
        for k in 0..one.steps() as u64 {
            let read = one.step(2, k).records;
            assert_eq!(two[0].step(2, k).records, read);
            let joined = [two[0].batch(&order, read), two[1].batch(&order, read)].concat();
            assert_eq!(one.batch(&order, read), joined);
        }
        assert_eq!(one.steps(), two[0].steps());
    }

    /// For any sizes before and after, and any numbers of ranks, nothing is read twice, and nothing
    /// is left out except records that fill no step at an epoch's end.
    #[test]
    fn a_place_is_the_same_for_batches_of_any_size() {
        for records in [1usize, 7, 24, 50] {
            for (before, after) in (1..=9).flat_map(|b| (1..=9).map(move |a| (b, a))) {
                for (ranks, drop_last) in [(1, true), (1, false), (2, true), (3, false)] {
                    let [old, new] = [before, after].map(|b| schedule(records, b, 0, ranks, drop_last));
                    if old.validate().is_err() || new.validate().is_err() {
                        continue;
                    }
                    let of_all = |s: &Schedule, place: LoaderState| {
                        let one =
                            Schedule { partition: Partition::WHOLE, batch_size: s.batch_size * ranks, ..*s };
                        one.batch(&one.order(place.epoch), place.records).to_vec()
                    };
                    let (mut place, mut read) = (LoaderState::default(), vec![]);
                    for step in 0..60 {
                        let s = if step < 17 { &old } else { &new };
                        if step == 17 {
                            place = new.place(place).unwrap();
                        }
                        read.extend(of_all(s, place).into_iter().map(|r| (place.epoch, r)));
                        place = s.following(place);
                    }
                    let epochs = read.last().unwrap().0;
                    let most = if drop_last { before.max(after) * ranks } else { 1 };
                    for epoch in 0..epochs {
                        let of_epoch = read.iter().filter(|(e, _)| *e == epoch).map(|(_, r)| *r);
                        let of_epoch: Vec<usize> = of_epoch.collect();
                        let expected = &old.order(epoch)[..of_epoch.len()];
                        assert_eq!(
                            of_epoch, expected,
                            "{records} records, {before} then {after}, {ranks} ranks"
                        );
                        assert!(of_epoch.len() + most > records, "{records}, {before} then {after}: too few");
                    }
                }
            }
        }
        let s = schedule(12, 5, 0, 1, true);
        assert_eq!(
            s.place(LoaderState { epoch: 3, records: 8 }).unwrap(),
            LoaderState { epoch: 4, records: 0 }
        );
        let error = s.place(LoaderState { epoch: 3, records: 13 }).unwrap_err().to_string();
        assert!(error.contains("13 lies outside an epoch of 12 records"), "{error}");
    }

    #[test]
    fn full_batches_only_when_asked_and_too_little_data_is_refused() {
        let s = schedule(50, 8, 0, 1, true);
        let order = s.order(0);
        assert!((0..s.steps() as u64).all(|k| s.batch(&order, s.step(0, k).records).len() == 8));
        assert!(schedule(5, 8, 0, 1, true).validate().is_err());
        assert_ne!(s.order(0), s.order(1));
    }
}
