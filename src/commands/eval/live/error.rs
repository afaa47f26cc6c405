//! Errors of live sources.

use eval::Item;

/// Names the image of a tokenizer's error about an image of a batch.
pub fn named(error: anyhow::Error, items: &[Item]) -> anyhow::Error {
    match error.downcast::<tokenizer::Error>() {
        Ok(e) => e.of_images(|i| format!("`{}`", items[i].name)).into(),
        Err(e) => e,
    }
}

/// The error of a source for the evaluation.
pub fn failed(error: anyhow::Error) -> eval::Error {
    eval::Error::Source(error.reallocate_into_boxed_dyn_error_without_backtrace())
}
