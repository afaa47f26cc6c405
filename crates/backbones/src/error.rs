use std::path::PathBuf;

use base::Hint;

use crate::public_file::PublicFile;

/// Error of a frozen network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The weight file does not fit the network.
    #[error("cannot load `{path}` into {network}")]
    Load {
        /// Network to be filled.
        network: String,
        /// The weight file.
        path: PathBuf,
        /// Tensors that did not fit.
        #[source]
        source: Box<weights::Error>,
    },
    /// A caption's features are not finite.
    #[error(
        "the text encoder makes numbers of the caption {caption:?} that are not finite (NaN or infinite)"
    )]
    CaptionNotFinite {
        /// The caption.
        caption: String,
    },
    /// A file could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// Weights that cannot be named by one digest.
    #[error("`{path}` is an index of several files; feature networks take one weight file")]
    Sharded {
        /// The index.
        path: PathBuf,
    },
    /// A public weight file is missing.
    #[error("no `{}` in `{folder}`: the weights of {} ({})", wanted.file, wanted.name, wanted.known())]
    Missing {
        /// Public file looked for.
        wanted: PublicFile,
        /// Folder searched.
        folder: PathBuf,
    },
    /// No public weights of a network are known in a form that is read here.
    #[error("no public weight file of {network} is known")]
    NoPublicFile {
        /// The network.
        network: String,
    },
    /// A file has a public file's name, but not its contents.
    #[error("`{path}` is not the public file of {name}: expected {expected}, found {found}")]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// Name of the public file.
        name: &'static str,
        /// Known size or digest of the public file.
        expected: String,
        /// Size or digest of this file.
        found: String,
    },
    /// A file is not the text vocabulary, or is another model's.
    #[error("`{path}` is not CLIP's vocabulary: {why}")]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// Reason.
        why: String,
    },
    /// A file is not a text tokenizer, or does not fit its encoder.
    #[error("`{path}` is not a usable text tokenizer: {why}")]
    TextTokenizer {
        /// The file or folder.
        path: PathBuf,
        /// Reason.
        why: String,
    },
    /// Input of the wrong shape.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        /// Name of the input.
        what: &'static str,
        /// Input of the network.
        expected: String,
        /// Input found.
        found: String,
    },
    /// A word is not one of the choices.
    #[error("unknown {what} `{found}`; choose {choices}")]
    Unknown {
        /// Subject of the choice.
        what: &'static str,
        /// The word.
        found: String,
        /// Available words.
        choices: String,
    },
    /// A tensor that does not fit its type.
    #[error(transparent)]
    Type(#[from] base::TypeError),
    /// A configuration that cannot be read.
    #[error(transparent)]
    Config(#[from] base::config::ConfigError),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::Load { source, .. } => source.hints(),
            Error::Config(e) => e.hints(),
            Error::Missing { wanted, .. } => missing_hints(wanted),
            Error::NoPublicFile { .. } => {
                vec!["name a weight file by this network's option (see `--help`)".into()]
            }
            Error::OtherFile { path, .. } => {
                vec![format!(
                    "to use other weights, name `{}` by this network's option (see `--help`)",
                    path.display()
                )]
            }
            Error::TextTokenizer { .. } => {
                vec![
                    "a text encoder's folder holds config.json, tokenizer.json or spiece.model, and weights"
                        .into(),
                ]
            }
            Error::Sharded { .. } => vec!["join the shards with `gen convert`".into()],
            _ => vec![],
        }
    }
}

fn missing_hints(wanted: &PublicFile) -> Vec<String> {
    let get = match wanted.origin {
        Some(_) => format!("`gen fetch {}` downloads it (licence: {})", wanted.name, wanted.licence),
        None => format!(
            "get it from {} (licence: {}) and put it there; `gen fetch {}` tells more",
            wanted.publisher, wanted.licence, wanted.name
        ),
    };
    let elsewhere = "or name another folder with `--weights-dir` or GEN_WEIGHTS, or the file by this network's option (see \
                     `--help`)";
    vec![get, elsewhere.into()]
}
