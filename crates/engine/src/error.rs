use std::io;

use base::Hint;

/// A result of this crate.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// An error of the engine, or of one of its images.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Models cannot be loaded, or an image cannot be made.
    #[error(transparent)]
    Generate(#[from] generate::Error),
    /// The engine was stopped before the image was done.
    #[error("the engine was stopped before the image was done")]
    Stopped,
    /// There is not enough memory for a single image.
    #[error("out of memory: {message}")]
    OutOfMemory {
        /// libtorch's message.
        message: String,
    },
    /// A pass of a network failed, and with it all its images.
    #[error("{what} failed: {message}")]
    Failed {
        /// Work that failed.
        what: &'static str,
        /// Reason.
        message: String,
    },
    /// A thread cannot be started.
    #[error("cannot start the thread `{name}`")]
    Thread {
        /// Name of the thread.
        name: &'static str,
        /// Reason.
        #[source]
        source: io::Error,
    },
}

impl From<sampler::Error> for EngineError {
    fn from(e: sampler::Error) -> Self {
        EngineError::Generate(e.into())
    }
}

impl From<tokenizer::Error> for EngineError {
    fn from(e: tokenizer::Error) -> Self {
        EngineError::Generate(e.into())
    }
}

impl From<base::TypeError> for EngineError {
    fn from(e: base::TypeError) -> Self {
        EngineError::Generate(e.into())
    }
}

impl Hint for EngineError {
    fn hints(&self) -> Vec<String> {
        match self {
            EngineError::Generate(e) => e.hints(),
            EngineError::OutOfMemory { .. } => {
                vec!["`--precision bf16` halves what the weights need".into()]
            }
            EngineError::Stopped | EngineError::Failed { .. } | EngineError::Thread { .. } => vec![],
        }
    }
}
