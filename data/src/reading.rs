//! Order of reading: batches, epochs, this rank's share, and the place in it.

use crate::Result;
use crate::partition::{LoaderState, Partition, Schedule};

/// Batches and their order, for readers of images and of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Records in a batch (of this rank).
    pub batch_size: usize,
    /// Decides the order, and what is random about each record.
    pub seed: u64,
    /// A new random order each epoch.
    pub shuffle: bool,
    /// Leave out the last batch of an epoch if it is not full.
    pub drop_last: bool,
    /// Number of epochs; `None` continues forever.
    pub epochs: Option<u64>,
    /// Share of this rank.
    pub partition: Partition,
}

impl Reading {
    /// For training: endless, shuffled, full batches.
    pub fn training(batch_size: usize, seed: u64) -> Self {
        Reading {
            batch_size,
            seed,
            shuffle: true,
            drop_last: true,
            epochs: None,
            partition: Partition::WHOLE,
        }
    }

    /// For evaluation: every record once, in the stored order.
    pub fn once(batch_size: usize) -> Self {
        Reading { shuffle: false, drop_last: false, epochs: Some(1), ..Self::training(batch_size, 0) }
    }

    /// Schedule of this many records.
    pub fn schedule(&self, records: usize) -> Schedule {
        let Reading { batch_size, seed, shuffle, drop_last, epochs: _, partition } = *self;
        Schedule { records, batch_size, seed, shuffle, drop_last, partition }
    }
}

/// Place of a reader's next batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    pub schedule: Schedule,
    epochs: Option<u64>,
    pub place: LoaderState,
}

impl Cursor {
    /// At the beginning of epoch 0.
    ///
    /// # Errors
    /// Returns an error if the records make no batch.
    pub fn new(reading: &Reading, records: usize) -> Result<Self> {
        let schedule = reading.schedule(records);
        schedule.validate()?;
        Ok(Cursor { schedule, epochs: reading.epochs, place: LoaderState::default() })
    }

    /// Whether the last epoch has ended.
    pub fn is_at_end(&self) -> bool {
        self.epochs.is_some_and(|n| self.place.epoch >= n)
    }

    /// Moves to the next batch.
    pub fn advance(&mut self) {
        self.place = self.schedule.following(self.place);
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
