use std::collections::BTreeSet;

use data::{Class, Dataset, Target};
use tch::Tensor;

use crate::{Error, Result};

/// Classes of a head: those of the training images, in ascending order of their index.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassMap {
    classes: Vec<Class>,
}

impl ClassMap {
    /// The classes that occur in `train`.
    ///
    /// # Errors
    /// Returns an error for an image without a class, fewer than two classes, a class that only
    /// `validation` has, or an index that means different classes in both.
    pub fn new(train: &dyn Dataset, validation: &dyn Dataset) -> Result<Self> {
        let present = labels(train, "training")?;
        if present.len() < 2 {
            let name = train.classes().first().map(|c| c.name.clone()).unwrap_or_default();
            return Err(Error::Recipe(format!(
                "all {} training images are of one class, `{name}`; a probe needs two or more",
                train.len()
            )));
        }
        let alien: Vec<i64> = labels(validation, "validation")?.difference(&present).copied().collect();
        if let Some(first) = alien.first() {
            let name = validation.classes().iter().find(|c| c.index == *first).map(|c| c.name.as_str());
            return Err(Error::Recipe(format!(
                "the validation images have {} classes that the training images lack; the first is {first} ({})",
                alien.len(),
                name.unwrap_or("no name")
            )));
        }
        let (ours, theirs) = (train.classes(), validation.classes());
        data::same_numbering(("the training images", ours), ("the validation images", theirs))?;
        let named = |index: i64| {
            let known = train.classes().iter().find(|c| c.index == index).cloned();
            known.unwrap_or_else(|| Class { index, wnid: String::new(), name: format!("class {index}") })
        };
        Ok(ClassMap { classes: present.into_iter().map(named).collect() })
    }

    /// The class of each output of the head.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The outputs (int64, as many as `labels`) that belong to class indices of the data.
    ///
    /// # Errors
    /// An index outside the classes.
    pub(crate) fn outputs(&self, labels: &[i64]) -> Result<Tensor> {
        let one = |label: &i64| {
            let found = self.classes.binary_search_by_key(label, |c| c.index);
            found
                .map(|i| i as i64)
                .map_err(|_| Error::Recipe(format!("label {label} is not a class of the probe")))
        };
        Ok(Tensor::from_slice(&labels.iter().map(one).collect::<Result<Vec<_>>>()?))
    }
}

fn labels(images: &dyn Dataset, which: &str) -> Result<BTreeSet<i64>> {
    let one = |i| match images.target(i) {
        Target::Class(index) => Ok(index),
        _ => Err(Error::Recipe(format!(
            "the {which} images have no class labels (the first is `{}`); a probe needs class folders, shards with \
             `.cls` members or a list with a class column",
            images.key(i)
        ))),
    };
    (0..images.len()).map(one).collect()
}
