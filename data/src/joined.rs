use std::sync::Arc;

use crate::{Class, Dataset, Record, Result, Target};

/// Several data sets one after the other. Labels are kept as they are, so sets of classes must number them alike; a
/// set of captioned images may follow one of classes.
pub struct Joined {
    sets: Vec<Arc<dyn Dataset>>,
    starts: Vec<usize>, // first record of each set
    classes: Vec<Class>,
}

impl Joined {
    /// At least one set.
    pub fn new(sets: Vec<Arc<dyn Dataset>>) -> Self {
        assert!(!sets.is_empty(), "nothing to join");
        let mut starts = vec![];
        let mut classes: Vec<Class> = vec![];
        let mut next = 0;
        for set in &sets {
            starts.push(next);
            next += set.len();
            classes.extend(set.classes().iter().cloned());
        }
        classes.sort_by_key(|c| c.index);
        classes.dedup_by_key(|c| c.index);
        Joined { sets, starts, classes }
    }

    fn place(&self, index: usize) -> (&dyn Dataset, usize) {
        let at = self.starts.partition_point(|s| *s <= index) - 1;
        (self.sets[at].as_ref(), index - self.starts[at])
    }
}

impl Dataset for Joined {
    fn len(&self) -> usize {
        self.sets.iter().map(|s| s.len()).sum()
    }

    fn key(&self, index: usize) -> String {
        let (set, i) = self.place(index);
        set.key(i)
    }

    fn target(&self, index: usize) -> Target {
        let (set, i) = self.place(index);
        set.target(i)
    }

    fn get(&self, index: usize) -> Result<Record> {
        let (set, i) = self.place(index);
        set.get(i)
    }

    fn classes(&self) -> &[Class] {
        &self.classes
    }

    fn describe(&self) -> String {
        self.sets.iter().map(|s| s.describe()).collect::<Vec<_>>().join(" + ")
    }
}
