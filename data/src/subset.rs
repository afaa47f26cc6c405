use std::path::PathBuf;
use std::sync::Arc;

use crate::{Class, Dataset, LeftOut, Record, Result, Target};

/// Some records of a data set, in a given order.
pub struct Subset {
    dataset: Arc<dyn Dataset>,
    indices: Vec<usize>,
}

impl Subset {
    /// The records `indices` of `dataset`; each must be below its length.
    pub fn new(dataset: Arc<dyn Dataset>, indices: Vec<usize>) -> Self {
        assert!(indices.iter().all(|i| *i < dataset.len()), "a subset of {} records", dataset.len());
        Subset { dataset, indices }
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn key(&self, index: usize) -> String {
        self.dataset.key(self.indices[index])
    }

    fn target(&self, index: usize) -> Target {
        self.dataset.target(self.indices[index])
    }

    fn get(&self, index: usize) -> Result<Record> {
        self.dataset.get(self.indices[index])
    }

    /// Those of the whole data set.
    fn classes(&self) -> &[Class] {
        self.dataset.classes()
    }

    /// Those of the whole data set.
    fn left_out(&self) -> &[LeftOut] {
        self.dataset.left_out()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.dataset.files()
    }

    fn describe(&self) -> String {
        format!("{} of {}", self.len(), self.dataset.describe())
    }
}
