use std::path::PathBuf;

use base::Hint;

/// What can go wrong with a frozen network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The weight file does not fit the network.
    #[error("cannot load `{path}` into {network}")]
    Load {
        /// What was to be filled.
        network: String,
        /// The weight file.
        path: PathBuf,
        /// The account of what did not fit.
        #[source]
        source: Box<weights::Error>,
    },
    /// A file could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Weights that cannot be named by one digest.
    #[error("`{path}` is an index of several files; feature networks take one weight file")]
    Sharded {
        /// The index.
        path: PathBuf,
    },
    /// Input of the wrong shape.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        /// What was given.
        what: &'static str,
        /// What the network takes.
        expected: String,
        /// What it got.
        found: String,
    },
    /// A word that is no choice.
    #[error("unknown {what} `{found}`; choose {choices}")]
    Unknown {
        /// What was to be chosen.
        what: &'static str,
        /// The word.
        found: String,
        /// The words there are.
        choices: String,
    },
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
            Error::Load { source, .. } => source.hints(),
            Error::Sharded { .. } => vec!["join the shards with `gen convert`".into()],
            _ => vec![],
        }
    }
}
