//! Models from their locations.

use ar_model::ArConfig;
use base::config::Document;
use base::{Precision, Progress};
use tch::Device;
use tokenizer::TokenizerConfig;

use crate::error::Result;
use crate::locate::Location;

impl Location {
    /// Loads a tokenizer. Progress names the file and its section, and the configuration's keys
    /// without effect.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or the two do not fit together.
    pub fn open_tokenizer(
        &self,
        device: Device,
        precision: Precision,
        progress: &mut dyn Progress,
    ) -> Result<tokenizer::Loaded> {
        let loaded = match self {
            Location::Directory(dir) => tokenizer::open_dir(dir, device, precision)?,
            Location::Files { config, weights } => {
                tokenizer::open(&TokenizerConfig::read(config)?, weights, device, precision)?
            }
        };
        progress.message(&format!("tokenizer: {}", loaded.source.origin()));
        self.report_ignored(TokenizerConfig::keys_without_effect, progress)?;
        Ok(loaded)
    }

    /// Loads a transformer, like [`Location::open_tokenizer`].
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or the two do not fit together.
    pub fn open_transformer(
        &self,
        device: Device,
        precision: Precision,
        progress: &mut dyn Progress,
    ) -> Result<ar_model::Loaded> {
        let loaded = match self {
            Location::Directory(dir) => ar_model::open_dir(dir, device, precision)?,
            Location::Files { config, weights } => {
                ar_model::open(&ArConfig::read(config)?, weights, device, precision)?
            }
        };
        progress.message(&format!("model: {}", loaded.source.origin()));
        self.report_ignored(ArConfig::keys_without_effect, progress)?;
        Ok(loaded)
    }

    fn report_ignored(&self, keys: fn(&Document) -> Vec<String>, progress: &mut dyn Progress) -> Result<()> {
        let config = self.config_file();
        let keys = keys(&Document::read(&config)?);
        if !keys.is_empty() {
            progress.message(&format!("{}: without effect here: {}", config.display(), keys.join(", ")));
        }
        Ok(())
    }
}
