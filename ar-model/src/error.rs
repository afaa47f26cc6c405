use std::path::PathBuf;

use base::Hint;

/// Errors of an autoregressive model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be read or parsed.
    #[error(transparent)]
    Config(#[from] base::config::ConfigError),
    /// The configuration is inconsistent or not supported.
    #[error("model configuration: {0}")]
    Settings(String),
    /// A directory is not a model directory.
    #[error("`{dir}` is not a model directory: it has no `{missing}`")]
    NotADirectory {
        /// Directory given.
        dir: PathBuf,
        /// Missing file.
        missing: &'static str,
    },
    /// The checkpoint does not match the configuration.
    #[error("cannot load `{path}` into this model")]
    Load {
        /// The checkpoint.
        path: PathBuf,
        /// Reason.
        #[source]
        source: Box<weights::Error>,
    },
    /// The backend does not support an option of the model.
    #[error("{by} do not support {found}")]
    Unsupported {
        /// Name of the backend, in plural.
        by: &'static str,
        /// Option of the model.
        found: String,
    },
    /// The kernels for a GPU cannot be compiled or launched.
    #[error(transparent)]
    Kernels(#[from] libtorch_ext::Error),
    /// An input has the wrong type, shape or range.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        /// Name of the input.
        what: &'static str,
        /// Expected type, shape or range.
        expected: String,
        /// Value found.
        found: String,
    },
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::Config(e) => e.hints(),
            Error::NotADirectory { .. } => vec![
                "a model directory contains config.yaml and weights.safetensors; for a published checkpoint, give its config and --weights FILE".into(),
            ],
            Error::Load { source, .. } => source.hints(),
            _ => vec![],
        }
    }
}
