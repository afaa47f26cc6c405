use base::Hint;
use base::hint::nearest;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while sampling.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The transformer and the tokenizer were not made for each other.
    #[error(
        "the model and the tokenizer do not fit together: the model has {what} {model}, the tokenizer {tokenizer}"
    )]
    Mismatch {
        /// Which number differs.
        what: &'static str,
        /// The model's.
        model: i64,
        /// The tokenizer's.
        tokenizer: i64,
    },
    /// A setting is out of its range.
    #[error("{what} is {found}, expected {expected}")]
    Setting {
        /// Its name.
        what: &'static str,
        /// Its value.
        found: f64,
        /// The range.
        expected: &'static str,
    },
    /// No guidance schedule has this name.
    #[error("there is no guidance schedule `{given}`")]
    UnknownSchedule {
        /// The name given.
        given: String,
        /// The schedules there are.
        known: &'static [&'static str],
    },
    /// A bound was given to a schedule that has no window.
    #[error("{what} has no meaning with the guidance schedule `{schedule}`")]
    NoWindow {
        /// The bound.
        what: &'static str,
        /// The schedule.
        schedule: &'static str,
    },
    /// Not one random stream per condition.
    #[error("{conditions} conditions need as many random streams, found {streams}")]
    Streams {
        /// Conditions in the batch.
        conditions: i64,
        /// Streams given.
        streams: usize,
    },
    /// Random numbers that the host makes for every step have no place in a captured one.
    #[error(
        "a CUDA graph draws from each image's own stream, by `RandomSource::Streams`, and in no other way"
    )]
    NeedsStreams,
    /// Speculative decoding couples its draws by Gumbel noise.
    #[error("speculative decoding draws by `RandomSource::Gumbel`, and in no other way")]
    NeedsGumbel,
    /// The backend has no step that a CUDA graph could hold.
    #[error("the kernels for the CPU decode without CUDA graphs")]
    NotCapturable,
    /// Capturing a step failed.
    #[error(transparent)]
    Libtorch(#[from] libtorch_ext::Error),
    /// There is no distribution to draw a code from.
    #[error(
        "the transformer's logits of image {image} at step {step} are not finite (NaN or infinite): no code can be drawn"
    )]
    NotFinite {
        /// The image's number, from 0: in the run, or in the batch where images have no random streams of
        /// their own.
        image: u64,
        /// The code's number, from 0.
        step: usize,
    },
    /// There is nothing to sample.
    #[error("there is no condition to sample for")]
    NoConditions,
    /// From the tokenizer's decoder.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// From the transformer.
    #[error(transparent)]
    Model(#[from] ar_model::Error),
    /// A tensor is not what its type promises.
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
                "fp16 overflows where bf16 and fp32 do not: `--precision bf16`; a very large `--cfg` overflows too".into(),
                "else a weight is not finite, as after a training run that diverged: use an earlier checkpoint".into(),
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
