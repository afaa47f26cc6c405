use std::io;
use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of finding or running a benchmark.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such benchmark.
    #[error("`--benchmark {given}` is neither a file nor a known benchmark")]
    Unknown {
        /// The name given.
        given: String,
        /// Names of all benchmarks.
        known: Vec<String>,
    },
    /// A benchmark that records figures only.
    #[error("`{name}` cannot be run: {why}")]
    NotRunnable {
        /// Name or file of the benchmark.
        name: String,
        /// The reason.
        why: String,
    },
    /// Files are missing.
    #[error("{missing} of {all} artifacts are missing\n{list}")]
    Missing {
        /// Number of missing artifacts.
        missing: usize,
        /// Number of all artifacts.
        all: usize,
        /// A line for each artifact.
        list: String,
    },
    /// The guidance scale is neither published nor searched.
    #[error("the guidance scale of this figure was not published")]
    ScaleUnknown,
    /// A search that the benchmark does not define.
    #[error("this benchmark has no search")]
    NoSearch,
    /// The folder belongs to another run.
    #[error("`{}` holds the run of another benchmark", dir.display())]
    OtherRun {
        /// The folder.
        dir: PathBuf,
    },
    /// The evaluation's results lack FID.
    #[error("the evaluation printed no FID")]
    NoFid,
    /// The search tried nothing.
    #[error("no guidance scale was tried")]
    NoScale,
    /// A configuration that does not exist.
    #[error("`{name}` is no released configuration and no file")]
    UnknownConfig {
        /// Its name.
        name: String,
    },
    /// A step that the benchmark lacks an artifact for.
    #[error("the benchmark has no {what}")]
    NoArtifact {
        /// Purpose of the artifact.
        what: String,
    },
    /// A path that cannot be an argument.
    #[error("`{}` is not valid UTF-8", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// A step skipped inputs.
    #[error("`{line}` left something out")]
    StepIncomplete {
        /// The command.
        line: String,
    },
    /// A step failed.
    #[error("`{line}` {how}")]
    StepFailed {
        /// The command.
        line: String,
        /// Its exit code, or that it was killed.
        how: String,
    },
    /// A step printed something else.
    #[error("`{line}` printed no JSON")]
    NoJson {
        /// The command.
        line: String,
        /// The reason.
        source: serde_json::Error,
    },
    /// A file or process failed.
    #[error("{what}")]
    Io {
        /// The attempted operation.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// An error from the file of the run's settings.
    #[error(transparent)]
    Claim(#[from] base::resume::ClaimError),
    /// An error from a benchmark's file.
    #[error(transparent)]
    Config(#[from] base::config::ConfigError),
    /// An error from the weights of a frozen network.
    #[error(transparent)]
    Backbones(#[from] backbones::Error),
    /// An error from images or prompts.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// An image cannot be encoded.
    #[error(transparent)]
    Image(#[from] image::ImageError),
    /// Results cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        |source| Error::Io { what: what.into(), source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(format!("cannot write `{}`", path.display()))
    }
}
