//! Order of reading: batches, epochs, and the place in it.

use crate::Result;
use crate::partition::{LoaderState, Partition, Schedule};

/// Batches and their order, for readers of images and of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Records in a batch.
    pub batch_size: usize,
    /// Decides the order, and what is random about each record.
    pub seed: u64,
    /// A new random order each epoch.
    pub shuffle: bool,
    /// Leave out the last batch of an epoch if it is not full.
    pub drop_last: bool,
    /// Number of epochs; `None` continues forever.
    pub epochs: Option<u64>,
}

impl Reading {
    /// For training: endless, shuffled, full batches.
    pub fn training(batch_size: usize, seed: u64) -> Self {
        Reading { batch_size, seed, shuffle: true, drop_last: true, epochs: None }
    }

    /// For evaluation: every record once, in the stored order.
    pub fn once(batch_size: usize) -> Self {
        Reading { shuffle: false, drop_last: false, epochs: Some(1), ..Self::training(batch_size, 0) }
    }

    /// Schedule of this many records.
    pub fn schedule(&self, records: usize) -> Schedule {
        let Reading { batch_size, seed, shuffle, drop_last, epochs: _ } = *self;
        Schedule { records, batch_size, seed, shuffle, drop_last }
    }
}

/// Place of a reader among those that take turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    pub schedule: Schedule,
    epochs: Option<u64>,
    partition: Partition,
    /// Place of rank 0's next batch, which is the same for all readers.
    pub place: LoaderState,
}

impl Cursor {
    /// A single reader, at the beginning of epoch 0.
    ///
    /// # Errors
    /// Returns an error if the records make no batch.
    pub fn new(reading: &Reading, records: usize) -> Result<Self> {
        let schedule = reading.schedule(records);
        schedule.validate()?;
        let (partition, place) = (Partition::WHOLE, LoaderState::default());
        Ok(Cursor { schedule, epochs: reading.epochs, partition, place })
    }

    /// Makes it one reader of several; all begin at the same place.
    pub fn share(&mut self, partition: Partition) {
        self.partition = partition;
    }

    /// Place of this reader's next batch; `None` after the last epoch.
    pub fn own(&self) -> Option<LoaderState> {
        let own = self.schedule.after(self.place, self.partition.rank);
        Some(own).filter(|own| self.epochs.is_none_or(|n| own.epoch < n))
    }

    /// Moves to the next batch of each reader.
    pub fn advance(&mut self) {
        self.place = self.schedule.after(self.place, self.partition.ranks);
    }

    /// Moves to a saved place, which may have been taken with batches of another size.
    ///
    /// # Errors
    /// Returns an error if the place is outside an epoch of these data.
    pub fn restore(&mut self, saved: LoaderState) -> Result<()> {
        self.place = self.schedule.place(saved)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two epochs' ends and a change of the number of readers.
    #[test]
    fn several_readers_read_in_turn_what_one_reads() {
        let reading = Reading::training(4, 7);
        let read = |changes: &[usize]| {
            let (mut batches, mut place) = (vec![], LoaderState::default());
            for &ranks in changes {
                for _ in 0..24 / ranks {
                    for rank in 0..ranks {
                        let mut cursor = Cursor::new(&reading, 30).unwrap();
                        cursor.restore(place).unwrap();
                        cursor.share(Partition { rank, ranks });
                        let own = cursor.own().unwrap();
                        let order = cursor.schedule.order(own.epoch);
                        batches.push((own.epoch, cursor.schedule.batch(&order, own.records).to_vec()));
                    }
                    let mut cursor = Cursor::new(&reading, 30).unwrap();
                    cursor.restore(place).unwrap();
                    cursor.share(Partition { rank: 0, ranks });
                    cursor.advance();
                    place = cursor.place;
                }
            }
            (batches, place)
        };
        let one = read(&[1, 1]);
        assert_eq!(one.0.len(), 48);
        for changes in [[2, 2], [3, 3], [4, 4], [2, 3], [4, 1]] {
            assert_eq!(one, read(&changes), "{changes:?}");
        }
    }

    #[test]
    fn the_last_batches_are_shared_too() {
        let reading = Reading::once(4);
        for ranks in 1..6 {
            let mut all = vec![];
            for rank in 0..ranks {
                let mut cursor = Cursor::new(&reading, 18).unwrap();
                cursor.share(Partition { rank, ranks });
                while let Some(own) = cursor.own() {
                    all.push(own.records);
                    cursor.advance();
                }
            }
            all.sort_unstable();
            assert_eq!(all, [0, 4, 8, 12, 16], "{ranks} ranks");
        }
    }
}
