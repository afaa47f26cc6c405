use std::path::PathBuf;
use std::sync::Arc;

use crate::{Class, Dataset, LeftOut, Record, Result, Target, labels};

/// Several data sets one after the other. Labels are kept as they are; a set of captioned images
/// may follow one of classes.
pub struct Joined {
    sets: Vec<Arc<dyn Dataset>>,
    starts: Vec<usize>, // first record of each set
    classes: Vec<Class>,
    left_out: Vec<LeftOut>,
}

impl Joined {
    /// At least one set.
    ///
    /// # Errors
    /// Returns an error if two sets number their classes differently.
    pub fn new(sets: Vec<Arc<dyn Dataset>>) -> Result<Self> {
        assert!(!sets.is_empty(), "nothing to join");
        let (mut starts, mut classes, mut left_out) = (vec![], Vec::<Class>::new(), vec![]);
        let mut next = 0;
        for (i, set) in sets.iter().enumerate() {
            for before in &sets[..i] {
                let of = |set: &Arc<dyn Dataset>| set.describe();
                labels::same_numbering((&of(before), before.classes()), (&of(set), set.classes()))?;
            }
            starts.push(next);
            next += set.len();
            classes.extend(set.classes().iter().cloned());
            left_out.extend(set.left_out().iter().cloned());
        }
        // Of a number that one set names and another does not, the name.
        classes.sort_by_key(|c| (c.index, c.name == labels::unnamed(c.index)));
        classes.dedup_by_key(|c| c.index);
        Ok(Joined { sets, starts, classes, left_out })
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

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn files(&self) -> Vec<PathBuf> {
        self.sets.iter().flat_map(|s| s.files()).collect()
    }

    fn describe(&self) -> String {
        self.sets.iter().map(|s| s.describe()).collect::<Vec<_>>().join(" + ")
    }
}
