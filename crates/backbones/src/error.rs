use std::path::PathBuf;

use base::Hint;

use crate::public_file::PublicFile;

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
    /// What the text encoder makes of a caption is not made of numbers.
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
        /// Why not.
        source: std::io::Error,
    },
    /// Weights that cannot be named by one digest.
    #[error("`{path}` is an index of several files; feature networks take one weight file")]
    Sharded {
        /// The index.
        path: PathBuf,
    },
    /// A public weight file that is nowhere to be found.
    #[error("no `{}` in `{folder}`: the weights of {} ({})", wanted.file, wanted.name, wanted.known())]
    Missing {
        /// What was looked for.
        wanted: PublicFile,
        /// Where.
        folder: PathBuf,
    },
    /// A network whose weights nobody is known to publish in the form that is read here.
    #[error("no public weight file of {network} is known")]
    NoPublicFile {
        /// The network.
        network: String,
    },
    /// A file under a public file's name that is not it.
    #[error("`{path}` is not the public file of {name}: expected {expected}, found {found}")]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// What it was taken for.
        name: &'static str,
        /// What is known of the public file.
        expected: String,
        /// What this one has.
        found: String,
    },
    /// A text vocabulary that is none, or another model's.
    #[error("`{path}` is not CLIP's vocabulary: {why}")]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A text tokenizer that is none, or does not fit its encoder.
    #[error("`{path}` is not a usable text tokenizer: {why}")]
    TextTokenizer {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
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
    /// A configuration that cannot be read.
    #[error(transparent)]
    Config(#[from] base::config::ConfigError),
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
    let elsewhere = "or name another folder with `--models-dir` or GEN_MODELS, or the file by this network's option (see \
                     `--help`)";
    vec![get, elsewhere.into()]
}
