use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base::Hint;
use base::resume::ClaimError;

/// Errors of training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that contradict each other, the data or the tokenizer.
    #[error("{0}")]
    Recipe(String),
    /// A run's file cannot be read or written.
    #[error("cannot {action} `{path}`: {source}")]
    File {
        /// `read`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The output directory is not empty.
    #[error("`{path}` is not empty")]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// True if it holds a training run.
        run: bool,
    },
    /// No saved state to resume from.
    #[error("`{path}` holds no saved state to resume from{}", passed_over(damaged))]
    NoState {
        /// The run's directory.
        path: PathBuf,
        /// Errors of the damaged states.
        damaged: Vec<String>,
    },
    /// Another process trains in the directory.
    #[error("another process trains in `{path}`")]
    Busy {
        /// The run's directory.
        path: PathBuf,
    },
    /// A saved state does not belong to this run.
    #[error("`{path}` does not fit this run: {message}")]
    State {
        /// The file.
        path: PathBuf,
        /// Expected and found values.
        message: String,
    },
    /// Stored codes of another tokenizer.
    #[error("{codes} holds codes of tokenizer {found}, not of this one, {expected}")]
    OtherTokenizer {
        /// The folders.
        codes: String,
        /// Fingerprint in their files.
        found: String,
        /// This tokenizer's.
        expected: String,
    },
    /// A `freeze` pattern that matches no parameter.
    #[error("freeze: no parameter of the model matches `{pattern}`")]
    NoSuchParameter {
        /// The pattern.
        pattern: String,
        /// Similar names.
        similar: Vec<String>,
    },
    /// A caption without stored features.
    #[error("there are no features of the caption {caption:?} in {sets}")]
    NoFeatures {
        /// The caption.
        caption: String,
        /// Searched folders.
        sets: String,
    },
    /// A frozen network without a file of weights in the recipe.
    #[error("the recipe uses {network}, and `{key}` names no file for its weights")]
    NoWeights {
        /// The network, and the public file's name.
        network: &'static str,
        /// The empty key of the recipe.
        key: &'static str,
    },
    /// A loss or gradient that is not finite. Nothing was updated.
    #[error("step {step}, {phase}: {what} is not finite; the weights were not updated")]
    NotFinite {
        /// The step.
        step: u64,
        /// The phase.
        phase: &'static str,
        /// Loss terms, parameters or gradients.
        what: String,
    },
    /// A linear probe's folder with other settings.
    #[error("`{path}` holds a probe with other settings; what differs: {differences}")]
    OtherProbe {
        /// The folder.
        path: PathBuf,
        /// Differing settings.
        differences: String,
    },
    /// A linear probe's loss that is not finite.
    #[error("step {step}: the probe's loss is not finite (learning rate {lr:.3e})")]
    Diverged {
        /// The step.
        step: u64,
        /// Learning rate of the step.
        lr: f64,
    },
    /// A later step of the run would fail.
    #[error("step {step} of this recipe would fail: {source}")]
    Later {
        /// The step.
        step: u64,
        /// The step's error.
        source: Box<Error>,
    },
    /// libtorch refused an operation.
    #[error("step {step}: {message}")]
    Torch {
        /// The step.
        step: u64,
        /// libtorch's message.
        message: String,
        /// Images in a micro-batch.
        micro_batch: usize,
    },
    /// An error from the configuration files.
    #[error(transparent)]
    Config(#[from] base::config::ConfigError),
    /// An error from checkpoint files.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// An error from another process.
    #[error(transparent)]
    Dist(#[from] dist::Error),
    /// An error from the training data.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// An error from the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// An error from a frozen network.
    #[error(transparent)]
    Backbones(#[from] backbones::Error),
    /// An error from the transformer.
    #[error(transparent)]
    Ar(#[from] ar_model::Error),
}

impl Error {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::File { action, path, source }
    }
}

impl From<ClaimError> for Error {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Read { path, source } => Error::File { action: "read", path, source },
            ClaimError::Write { path, source } => Error::File { action: "write", path, source },
            ClaimError::Malformed { path, message } => Error::State { path, message },
            ClaimError::Differs { path, keys } => {
                let message = format!("its settings differ in {}; remove the folder", keys.join(", "));
                Error::State { path, message }
            }
        }
    }
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::Occupied { run: true, .. } => {
                vec!["`--resume` continues the run in it; or choose another `--output`".into()]
            }
            Error::Occupied { run: false, .. } => vec!["choose another `--output`, or empty it".into()],
            Error::NoState { .. } => vec!["leave out `--resume` to start a new run".into()],
            Error::File { source, .. } | Error::Weights(weights::Error::Io { source, .. })
                if source.kind() == ErrorKind::StorageFull =>
            {
                vec!["the states saved before are whole; make room and continue with `--resume`".into()]
            }
            Error::Busy { .. } => vec!["wait for it, or choose another `--output`".into()],
            Error::OtherTokenizer { .. } => {
                vec!["extract them again with `gen extract`, or use the tokenizer that made them".into()]
            }
            Error::NoSuchParameter { similar, .. } => {
                let near = similar.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(" or ");
                let near = (!near.is_empty()).then(|| format!("did you mean {near}?"));
                let all = "`gen inspect` on the run's weights lists all names; `*` matches one part of a name".into();
                near.into_iter().chain([all]).collect()
            }
            Error::NoFeatures { .. } => vec![
                "`gen extract --text ENCODER` stores the features of a data set's captions; add `--first-sentence` if the \
                 recipe has `text.first_sentence`"
                    .into(),
            ],
            Error::NoWeights { key: "text.encoder.folder", .. } => {
                vec!["add `--text-encoder DIR`, or `--text-features DIR` with features stored by `gen extract --text`".into()]
            }
            Error::NoWeights { key, .. } => {
                vec![format!("add `{key}=FILE`; `{key}=random:0` tries the recipe without the file")]
            }
            Error::NotFinite { .. } => vec![
                "lower `optimization.lr`, raise `optimization.warmup`, or train in fp32; `--resume` continues from \
                 the last saved state; `optimization.on_nonfinite=skip` skips such steps"
                    .into(),
            ],
            Error::OtherProbe { .. } => {
                vec!["choose another `--output`; `--cache` lets both share stored features".into()]
            }
            Error::Diverged { .. } => {
                vec!["lower `--base-lr`; if the features are not finite either, the model is damaged".into()]
            }
            Error::Torch { micro_batch, message, .. } if message.contains("memory") => {
                vec![format!(
                    "raise `optimization.micro_batches` or lower `optimization.batch_size` (now {micro_batch} \
                     images at once)"
                )]
            }
            Error::Later { source, .. } => source.hints(),
            Error::Config(e) => e.hints(),
            Error::Weights(e) => e.hints(),
            Error::Data(e) => e.hints(),
            Error::Dist(e) => e.hints(),
            Error::Tokenizer(e) => e.hints(),
            Error::Backbones(e) => e.hints(),
            Error::Ar(e) => e.hints(),
            _ => vec![],
        }
    }
}

fn passed_over(damaged: &[String]) -> String {
    damaged.iter().map(|d| format!("; {d}")).collect()
}

/// This crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;
