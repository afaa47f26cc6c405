use std::path::PathBuf;

use base::Hint;

/// What can go wrong with an autoregressive model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be read or parsed.
    #[error(transparent)]
    Config(#[from] base::config::ConfigError),
    /// The configuration contradicts itself or asks for what does not exist.
    #[error("model configuration: {0}")]
    Settings(String),
    /// A directory holds no model.
    #[error("`{dir}` is not a model directory: it has no `{missing}`")]
    NotADirectory {
        /// The directory given.
        dir: PathBuf,
        /// The file it lacks.
        missing: &'static str,
    },
    /// The checkpoint does not fit the configuration.
    #[error("cannot load `{path}` into this model")]
    Load {
        /// The checkpoint.
        path: PathBuf,
        /// The account of what did not fit.
        #[source]
        source: Box<weights::Error>,
    },
    /// A way of decoding that the model does not allow.
    #[error("{by} do not know {found}")]
    Unsupported {
        /// What decodes.
        by: &'static str,
        /// What the model has.
        found: String,
    },
    /// The kernels for a GPU cannot be run.
    #[error(transparent)]
    Kernels(#[from] libtorch_ext::Error),
    /// Input of the wrong shape or kind.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        /// What was given.
        what: &'static str,
        /// What the model takes.
        expected: String,
        /// What it got.
        found: String,
    },
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::Config(e) => e.hints(),
            Error::NotADirectory { .. } => vec![
                "a model directory holds config.yaml and weights.safetensors; for a published file give its config and --weights FILE".into(),
            ],
            Error::Load { source, .. } => source.hints(),
            _ => vec![],
        }
    }
}
