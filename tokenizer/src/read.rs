//! Configurations from files: our own YAML, and the official projects'.

use std::path::Path;

use base::config::Document;

use crate::config::TokenizerConfig;
use crate::error::Result;
use crate::official;

impl TokenizerConfig {
    /// Reads a configuration of ours, an official `VQ_*.yaml`, or the `config` of a golden's
    /// manifest.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not YAML, names an unknown key, or
    /// contradicts itself.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_document(&Document::read(path)?)
    }

    /// Reads a configuration from parsed YAML.
    ///
    /// # Errors
    /// Returns an error if the document names an unknown key or contradicts itself.
    pub fn from_document(document: &Document) -> Result<Self> {
        let config = match official::recognise(&document.to_json()?) {
            Some(model) => official::convert(&model)?,
            None => document.typed()?,
        };
        config.check()?;
        Ok(config)
    }

    /// The keys of an official YAML's `init_args` that change nothing here, in their order.
    pub fn keys_without_effect(document: &Document) -> Vec<String> {
        let json = document.to_json().unwrap_or_default();
        official::recognise(&json).map(|model| official::without_effect(&model)).unwrap_or_default()
    }
}
