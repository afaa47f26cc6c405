//! Captions of images: their own, or made from the names of their classes.

use std::collections::HashMap;

use base::rng;
use data::codes::CodeBatch;
use data::{Class, NO_CLASS};

use super::recipe::TextRecipe;
use crate::{Error, Result};

/// Separate the random numbers of captions from all other uses of a seed.
const TEMPLATE: u64 = 0x7E3F;
const SENTENCE: u64 = 0x5E27;

/// Captions as a function of the seed, the epoch and the record.
#[derive(Debug)]
pub(crate) struct Captions {
    templates: Vec<String>,
    first_sentence: f64,
    names: HashMap<i64, String>,
    seed: u64,
}

impl Captions {
    pub fn new(recipe: &TextRecipe, classes: &[Class], seed: u64) -> Self {
        Captions {
            templates: recipe.templates.clone(),
            first_sentence: recipe.first_sentence,
            names: classes.iter().map(|c| (c.index, c.name.clone())).collect(),
            seed,
        }
    }

    /// The captions of a batch.
    ///
    /// # Errors
    /// Returns an error that names a record without a caption or a known class.
    pub fn of(&self, batch: &CodeBatch) -> Result<Vec<String>> {
        (0..batch.labels.len()).map(|i| self.one(batch, i)).collect()
    }

    fn one(&self, batch: &CodeBatch, i: usize) -> Result<String> {
        let (epoch, record) = (batch.epoch, batch.indices[i] as u64);
        let own = batch.captions[i].trim();
        if own.is_empty() {
            let template =
                rng::below(self.seed, &[TEMPLATE, epoch, record], self.templates.len().max(1) as u64);
            return self.of_class(batch.labels[i], template as usize).ok_or_else(|| missing(batch, i, self));
        }
        let short = self.first_sentence > 0.0
            && rng::uniform(self.seed, &[SENTENCE, epoch, record]) < self.first_sentence;
        Ok(if short { first_sentence(own) } else { own.to_owned() })
    }

    fn of_class(&self, label: i64, template: usize) -> Option<String> {
        let template = self.templates.get(template)?;
        self.names.get(&label).map(|name| fill(template, name))
    }

    /// All captions made from classes.
    pub fn of_classes(&self) -> Vec<String> {
        let mut labels: Vec<&i64> = self.names.keys().collect();
        labels.sort();
        let all = labels.into_iter().flat_map(|l| (0..self.templates.len()).map(move |t| (*l, t)));
        all.filter_map(|(label, template)| self.of_class(label, template)).collect()
    }
}

/// The text up to its first full stop (LlamaGen's short captions).
pub fn first_sentence(caption: &str) -> String {
    caption.split('.').next().unwrap_or_default().to_owned()
}

fn fill(template: &str, name: &str) -> String {
    let article =
        if name.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    template.replace("{a}", &format!("{article} {name}")).replace("{}", name)
}

fn missing(batch: &CodeBatch, i: usize, captions: &Captions) -> Error {
    let record = &batch.keys[i];
    Error::Recipe(match batch.labels[i] {
        NO_CLASS => format!("{record} has no caption; a text-conditional model needs one for each image"),
        label if captions.templates.is_empty() => format!(
            "{record} has class {label} and no caption; `text.templates` can make captions from the classes' names"
        ),
        label => format!("{record} has class {label}, whose name is not known, and no caption"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_take_names_with_and_without_article() {
        assert_eq!(fill("a photo of {a}", "orange"), "a photo of an orange");
        assert_eq!(fill("{} in the wild", "lion"), "lion in the wild");
        assert_eq!(first_sentence("A dog. It runs."), "A dog");
    }
}
