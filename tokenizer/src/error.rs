use std::path::PathBuf;

use base::Hint;

/// What can go wrong with a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be read or parsed.
    #[error(transparent)]
    Config(#[from] base::config::ConfigError),
    /// The configuration contradicts itself or asks for what does not exist.
    #[error("tokenizer configuration: {0}")]
    Settings(String),
    /// A directory holds no tokenizer.
    #[error("`{dir}` is not a tokenizer directory: it has no `{missing}`")]
    NotADirectory {
        /// The directory given.
        dir: PathBuf,
        /// The file it lacks.
        missing: &'static str,
    },
    /// The checkpoint does not fit the configuration.
    #[error("cannot load `{path}` into this tokenizer")]
    Load {
        /// The checkpoint.
        path: PathBuf,
        /// The account of what did not fit.
        #[source]
        source: Box<weights::Error>,
    },
    /// The kernels for a GPU cannot be run.
    #[error(transparent)]
    Kernels(#[from] libtorch_ext::Error),
    /// Input of the wrong shape.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        /// What was given.
        what: &'static str,
        /// What the model takes.
        expected: String,
        /// What it got.
        found: String,
    },
    /// The frozen vision network cannot be read.
    #[error(transparent)]
    Vision(#[from] backbones::Error),
    /// A tensor that does not fit its type.
    #[error(transparent)]
    Type(#[from] base::TypeError),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::Config(e) => e.hints(),
            Error::NotADirectory { .. } => vec![
                "a tokenizer directory holds config.yaml and weights.safetensors; for a published file give its config and --weights FILE".into(),
            ],
            Error::Load { source, .. } => source.hints(),
            Error::Vision(e) => e.hints(),
            _ => vec![],
        }
    }
}
