use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base::Hint;
use base::resume::ClaimError;

/// What can go wrong in training.
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
        /// Why not.
        source: std::io::Error,
    },
    /// The output directory holds something already.
    #[error("`{path}` is not empty")]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// True if what it holds is a training run.
        run: bool,
    },
    /// There is nothing to resume.
    #[error("`{path}` holds no saved state to resume from{}", passed_over(damaged))]
    NoState {
        /// The run's directory.
        path: PathBuf,
        /// What is wrong with the states that are there.
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
        /// What was expected and found.
        message: String,
    },
    /// Stored codes that another tokenizer made.
    #[error("{codes} holds codes of tokenizer {found}, not of this one, {expected}")]
    OtherTokenizer {
        /// The folders.
        codes: String,
        /// The fingerprint they state.
        found: String,
        /// This tokenizer's.
        expected: String,
    },
    /// A part of the model that is to be frozen and does not exist.
    #[error("freeze: no parameter of the model is called `{pattern}` or stands below it")]
    NoSuchParameter {
        /// What the recipe says.
        pattern: String,
        /// Names alike.
        similar: Vec<String>,
    },
    /// A caption of which no features are stored.
    #[error("there are no features of the caption {caption:?} in {sets}")]
    NoFeatures {
        /// The caption.
        caption: String,
        /// Where they were looked for.
        sets: String,
    },
    /// A frozen network that a recipe asks for without naming its weights.
    #[error("the recipe uses {network}, and `{key}` names no file for its weights")]
    NoWeights {
        /// The network, and the public file's name.
        network: &'static str,
        /// The key of the recipe that is empty.
        key: &'static str,
    },
    /// A loss or a gradient stopped being a number. Nothing was updated.
    #[error("step {step}, {phase}: {what} is not finite; the step was not made")]
    NotFinite {
        /// The step.
        step: u64,
        /// Which phase of it.
        phase: &'static str,
        /// The loss terms, or else the parameters whose gradient it is.
        what: String,
    },
    /// A linear probe's folder with other settings.
    #[error("`{path}` holds a probe with other settings; what differs: {differences}")]
    OtherProbe {
        /// The folder.
        path: PathBuf,
        /// Which settings.
        differences: String,
    },
    /// A linear probe's loss stopped being a number.
    #[error("step {step}: the probe's loss is not finite (learning rate {lr:.3e})")]
    Diverged {
        /// The step.
        step: u64,
        /// The learning rate it was made with.
        lr: f64,
    },
    /// A later step of the run would fail.
    #[error("step {step} of this recipe would fail: {source}")]
    Later {
        /// The step.
        step: u64,
        /// How.
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
    /// From the configuration files.
    #[error(transparent)]
    Config(#[from] base::config::ConfigError),
    /// From checkpoint files.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// From the training data.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// From the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// From a frozen network.
    #[error(transparent)]
    Backbones(#[from] backbones::Error),
    /// From the transformer.
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
            Error::NoState { .. } => vec!["leave `--resume` out to begin a new run".into()],
            Error::File { source, .. } | Error::Weights(weights::Error::Io { source, .. })
                if source.kind() == ErrorKind::StorageFull =>
            {
                vec!["the states saved before are whole; make room, and `--resume` goes on".into()]
            }
            Error::Busy { .. } => vec!["wait for it, or choose another `--output`".into()],
            Error::OtherTokenizer { .. } => {
                vec!["extract them anew with `gen extract`, or give the tokenizer that made them".into()]
            }
            Error::NoSuchParameter { similar, .. } => {
                let near = similar.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(" or ");
                let near = (!near.is_empty()).then(|| format!("did you mean {near}?"));
                let all = "`gen inspect` on the run's weights lists all names; `*` stands for one part of a name".into();
                near.into_iter().chain([all]).collect()
            }
            Error::NoFeatures { .. } => vec![
                "`gen extract --text ENCODER` stores those of a data set's captions; add `--first-sentence` where the \
                 recipe has `text.first_sentence`"
                    .into(),
            ],
            Error::NoWeights { key: "text.encoder.folder", .. } => {
                vec!["add `--text-encoder DIR`, or `--text-features DIR` with what `gen extract --text` stored".into()]
            }
            Error::NoWeights { key, .. } => {
                vec![format!("add `{key}=FILE`; `{key}=random:0` tries the recipe out without the file")]
            }
            Error::NotFinite { .. } => vec![
                "lower `optimization.lr`, raise `optimization.warmup`, or train in fp32; `--resume` continues from \
                 the last saved state; `optimization.on_nonfinite=skip` leaves such steps out"
                    .into(),
            ],
            Error::OtherProbe { .. } => {
                vec!["choose another `--output`; `--cache` lets both share stored features".into()]
            }
            Error::Diverged { .. } => {
                vec!["lower `--base-lr`; features that are not finite themselves come from a damaged model".into()]
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
