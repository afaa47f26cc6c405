//! Text encoder of a transformer, as its directory describes it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::encoder::EncoderFiles;

/// The file of a [`TextDescription`] in a transformer's directory.
pub const TEXT_FILE: &str = "text.yaml";
/// The folder beside it for the configuration and the tokenizer of an encoder that was trained
/// along.
pub const TEXT_FOLDER: &str = "text_encoder";
/// Prefix of such an encoder's weights among the transformer's.
pub const TEXT_PREFIX: &str = "text_encoder";

/// Path from a prompt to a transformer's condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextDescription {
    /// Whether texts are cleaned first, as published.
    pub clean: bool,
    /// The encoder.
    pub encoder: WhichEncoder,
}

/// Location of a transformer's text encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum WhichEncoder {
    /// Trained along, in the transformer's directory and checkpoint.
    Inside,
    /// A frozen one of its own.
    Outside {
        /// Hash of its weights and tokenizer.
        fingerprint: String,
        /// Location in training, if it was outside.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        folder: Option<PathBuf>,
    },
}

impl TextDescription {
    /// The description in a transformer's directory, if there is one.
    ///
    /// # Errors
    /// Returns an error if it cannot be read.
    pub fn in_directory(dir: &Path) -> crate::Result<Option<Self>> {
        let path = dir.join(TEXT_FILE);
        Ok(if path.is_file() { Some(base::config::read(&path)?) } else { None })
    }
}

impl EncoderFiles {
    /// Those of an encoder that was trained along with the transformer in `dir`.
    pub fn inside(dir: &Path) -> Self {
        EncoderFiles {
            config: dir.join(TEXT_FOLDER).join("config.json"),
            tokenizer: dir.join(TEXT_FOLDER),
            weights: dir.join(weights::WEIGHTS_FILE),
            prefix: Some(TEXT_PREFIX),
        }
    }
}
