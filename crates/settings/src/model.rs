//! Models as users name them.

use std::path::PathBuf;

/// A transformer or a tokenizer as it was named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelChoice {
    /// A directory, a configuration file, or the name of a bundled model; `None` for the default.
    pub name: Option<String>,
    /// Checkpoint, where it is given apart from the configuration.
    pub weights: Option<PathBuf>,
}

impl ModelChoice {
    /// A model without a checkpoint of its own.
    pub fn named(name: impl Into<String>) -> Self {
        ModelChoice { name: Some(name.into()), weights: None }
    }
}
