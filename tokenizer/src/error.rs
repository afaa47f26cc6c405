use std::path::PathBuf;

use base::Hint;

/// Error of a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be read or parsed.
    #[error(transparent)]
    Config(#[from] base::config::ConfigError),
    /// The configuration contradicts itself or names something that does not exist.
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
        /// Tensors that did not fit.
        #[source]
        source: Box<weights::Error>,
    },
    /// The kernels for a GPU cannot be run.
    #[error(transparent)]
    Kernels(#[from] libtorch_ext::Error),
    /// Input of the wrong shape.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        /// Name of the input.
        what: &'static str,
        /// Input of the model.
        expected: String,
        /// Input found.
        found: String,
    },
    /// The frozen vision network cannot be read.
    #[error(transparent)]
    Vision(#[from] backbones::Error),
    /// An output of the network is not finite.
    #[error("the tokenizer's {network} makes numbers of {image} that are not finite (NaN or infinite)")]
    NotFinite {
        /// Part of the network.
        network: &'static str,
        /// The image's place in the batch.
        index: usize,
        /// Name.
        image: String,
    },
    /// A tensor that does not fit its type.
    #[error(transparent)]
    Type(#[from] base::TypeError),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl Error {
    /// Calls an image of the batch by its name.
    #[must_use]
    pub fn of_images(self, name: impl Fn(usize) -> String) -> Self {
        match self {
            Error::NotFinite { network, index, .. } => {
                Error::NotFinite { network, index, image: name(index) }
            }
            other => other,
        }
    }
}

/// Result of this crate.
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
            Error::NotFinite { .. } => vec![
                "fp16 overflows where bf16 and fp32 do not: `--precision bf16` (of `gen sample`, `--tokenizer-precision`)".into(),
                "else a weight is not finite, as after a training run that diverged: use an earlier checkpoint".into(),
            ],
            _ => vec![],
        }
    }
}
