use base::Hint;
use base::hint::nearest;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of sampling.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The transformer and the tokenizer do not match.
    #[error(
        "the model and the tokenizer do not match: the model has {what} {model}, the tokenizer {tokenizer}"
    )]
    Mismatch {
        /// The number that differs.
        what: &'static str,
        /// The model's value.
        model: i64,
        /// The tokenizer's value.
        tokenizer: i64,
    },
    /// A setting is out of its range.
    #[error("{what} is {found}, expected {expected}")]
    Setting {
        /// Name of the setting.
        what: &'static str,
        /// Value found.
        found: f64,
        /// Valid range.
        expected: &'static str,
    },
    /// The guidance schedule is unknown.
    #[error("there is no guidance schedule `{given}`")]
    UnknownSchedule {
        /// Name given.
        given: String,
        /// Known schedules.
        known: &'static [&'static str],
    },
    /// A bound was given for a schedule without a window.
    #[error("{what} does not apply to the guidance schedule `{schedule}`")]
    NoWindow {
        /// The bound.
        what: &'static str,
        /// The schedule.
        schedule: &'static str,
    },
    /// The numbers of random streams and conditions differ.
    #[error("{conditions} conditions need as many random streams, found {streams}")]
    Streams {
        /// Conditions in the batch.
        conditions: i64,
        /// Streams given.
        streams: usize,
    },
    /// A captured step cannot use random numbers that the host generates for every step.
    #[error("a CUDA graph samples from each image's own stream only (`RandomSource::Streams`)")]
    NeedsStreams,
    /// Speculative decoding needs Gumbel noise.
    #[error("speculative decoding samples with Gumbel noise only (`RandomSource::Gumbel`)")]
    NeedsGumbel,
    /// The backend has no step that can be captured.
    #[error("the kernels for the CPU do not support CUDA graphs")]
    NotCapturable,
    /// Capturing a step failed.
    #[error(transparent)]
    Libtorch(#[from] libtorch_ext::Error),
    /// The logits of a code are NaN or infinite.
    #[error("the transformer's logits of image {image} at step {step} are not finite (NaN or infinite)")]
    NotFinite {
        /// Index of the image, from 0: in the run, or in the batch if images have no random
        /// streams.
        image: u64,
        /// Index of the code, from 0.
        step: usize,
    },
    /// More images than empty slots.
    #[error("{images} images need as many empty slots, found {free}")]
    NoFreeSlot {
        /// Images to admit.
        images: usize,
        /// Empty slots.
        free: usize,
    },
    /// The batch of conditions is empty.
    #[error("there is no condition to sample for")]
    NoConditions,
    /// The tokenizer's decoder failed.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// The transformer refused its input.
    #[error(transparent)]
    Model(#[from] ar_model::Error),
    /// A tensor has the wrong shape, dtype or range for its type.
    #[error(transparent)]
    Type(#[from] base::TypeError),
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::Mismatch { .. } => {
                vec!["use the tokenizer whose codes the model was trained on, with `--tokenizer`".into()]
            }
            Error::UnknownSchedule { given, known } => {
                let near = nearest(given, known.iter().copied(), 1);
                let near = near.iter().map(|n| format!("did you mean `{n}`?"));
                near.chain([format!("the schedules are {}", known.join(", "))]).collect()
            }
            Error::NotFinite { .. } => vec![
                "fp16 overflows where bf16 and fp32 do not: try `--precision bf16`; a very large `--cfg` overflows too".into(),
                "otherwise a weight is not finite, as after a diverged training run: use an earlier checkpoint".into(),
            ],
            Error::NoWindow { .. } => {
                vec!["`step` has a start; `rectangular` has a start and an end".into()]
            }
            Error::Tokenizer(e) => e.hints(),
            Error::Model(e) => e.hints(),
            _ => vec![],
        }
    }
}
