use std::path::{Path, PathBuf};

use base::Hint;

/// Error between a disk and a batch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// A path holds no images in a known form.
    #[error("`{path}` is not a set of images: {found}")]
    NotADataset {
        /// Name of the input.
        path: PathBuf,
        /// Contents found.
        found: String,
        /// Advice.
        hints: Vec<String>,
    },
    /// A path holds no codes in a known form.
    #[error("`{path}` holds no codes: {found}")]
    NotCodes {
        /// Name of the input.
        path: PathBuf,
        /// Contents found.
        found: String,
        /// Advice.
        hints: Vec<String>,
    },
    /// A folder with codes of another run.
    #[error("`{path}` holds codes of another run; what differs: {differences}")]
    OtherCodes {
        /// The folder.
        path: PathBuf,
        /// Differing settings.
        differences: String,
    },
    /// A folder with text features of another run.
    #[error("`{path}` holds text features of another run; what differs: {differences}")]
    OtherFeatures {
        /// The folder.
        path: PathBuf,
        /// Differing settings.
        differences: String,
    },
    /// A file of a known form with wrong content.
    #[error("`{path}`: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Place in the file, the value expected and the value found.
        message: String,
    },
    /// An `.npz` that cannot be read.
    #[error(transparent)]
    Npz(#[from] base::npz::NpzError),
    /// Bytes are not an image, or a damaged one.
    #[error("cannot decode image `{key}`: {message}")]
    Decode {
        /// The record's key.
        key: String,
        /// The decoder's words.
        message: String,
    },
    /// More damaged images than allowed.
    #[error(
        "{count} images cannot be decoded, more than the {ceiling} allowed; the last: `{key}`: {message}"
    )]
    TooManyCorrupt {
        /// Number of different records that failed.
        count: usize,
        /// Number allowed.
        ceiling: usize,
        /// The last one.
        key: String,
        /// Reason.
        message: String,
        /// The file that lists them.
        list: Option<PathBuf>,
    },
    /// A class that does not exist, or several that fit.
    #[error("{message}")]
    Class {
        /// Name asked for, and the reason for refusing it.
        message: String,
        /// The nearest classes.
        hints: Vec<String>,
    },
    /// Settings that contradict each other or the data.
    #[error("{0}")]
    Settings(String),
    /// A background thread ended without a result.
    #[error("the loader's thread stopped unexpectedly; this is a bug")]
    LoaderStopped,
}

impl Error {
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    }

    pub(crate) fn malformed(path: &Path, message: impl Into<String>) -> Error {
        Error::Malformed { path: path.to_owned(), message: message.into() }
    }
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::NotADataset { hints, .. } | Error::NotCodes { hints, .. } | Error::Class { hints, .. } => {
                hints.clone()
            }
            Error::OtherCodes { .. } | Error::OtherFeatures { .. } => {
                vec!["choose another output folder, or remove this one".into()]
            }
            Error::TooManyCorrupt { list: Some(list), .. } => {
                vec![format!("`{}` lists them all", list.display())]
            }
            Error::Npz(e) => e.hints(),
            _ => vec![],
        }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
