//! Errors of metrics.

use base::Hint;
use tch::Kind;

use crate::job_error::JobError;

/// Errors of metrics.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The two batches differ in shape.
    #[error("cannot compare images of shape {found:?} with originals of shape {expected:?}")]
    Shape {
        /// Shape of the originals.
        expected: Vec<i64>,
        /// Shape of what is judged.
        found: Vec<i64>,
    },
    /// The images are smaller than the metric's window.
    #[error("{metric} looks at windows of {window}x{window} pixels; these images have {height}x{width}")]
    TooSmall {
        /// The metric.
        metric: &'static str,
        /// Side of its window.
        window: i64,
        /// Height of the images.
        height: i64,
        /// Width of the images.
        width: i64,
    },
    /// Too little of something.
    #[error("{metric} needs at least {needed}, found {found}")]
    TooFew {
        /// The metric.
        metric: &'static str,
        /// Required number.
        needed: i64,
        /// Actual number.
        found: i64,
    },
    /// A tensor that is no set of feature rows.
    #[error("expected features (N, D) of floating point, found shape {shape:?} of {kind:?}")]
    NotRows {
        /// Its shape.
        shape: Vec<i64>,
        /// Its dtype.
        kind: Kind,
    },
    /// Infinite features, or none at all.
    #[error("row {row} of the features holds a value that is not finite")]
    NotFinite {
        /// The first such row.
        row: i64,
    },
    /// Two sets of features with unlike dimensions.
    #[error("expected features of {expected} dimensions, found {found}")]
    Dimension {
        /// Dimension of the first set.
        expected: i64,
        /// Dimension of the second set.
        found: i64,
    },
    /// A mean and a covariance that do not go together.
    #[error("expected a mean (D) and a covariance (D, D), found {mean:?} and {covariance:?}")]
    Statistics {
        /// Shape of the mean.
        mean: Vec<i64>,
        /// Shape of the covariance.
        covariance: Vec<i64>,
    },
    /// Numbers that are no mean, or no covariance.
    #[error("`{name}` {what}")]
    NotStatistics {
        /// The mean or the covariance.
        name: String,
        /// The problem.
        what: &'static str,
    },
    /// A file with something wrong in it.
    #[error("`{path}`: {error}")]
    InFile {
        /// The file.
        path: std::path::PathBuf,
        /// The error.
        error: Box<Error>,
    },
    /// Two lists that should have one length.
    #[error("expected {expected} {what}, found {found}")]
    Count {
        /// The counted things.
        what: &'static str,
        /// Expected number.
        expected: i64,
        /// Actual number.
        found: i64,
    },
    /// A row number outside the set.
    #[error("there is no row {row}: the set has {rows}")]
    NoSuchRow {
        /// The number.
        row: i64,
        /// Rows of the set.
        rows: i64,
    },
    /// A code outside the codebook.
    #[error("code {code} is outside the codebook's 0..{size}")]
    CodeRange {
        /// The code.
        code: i64,
        /// Entries of the codebook.
        size: i64,
    },
    /// A class outside the classifier's.
    #[error("class {class} is none of the classifier's 0..{classes}")]
    NoSuchClass {
        /// The class.
        class: i64,
        /// Classes of the classifier.
        classes: i64,
    },
    /// A network that does not give what a metric needs.
    #[error("the network gives no {what}")]
    NoOutput {
        /// The missing output.
        what: &'static str,
    },
    /// Features of two networks, or of one in two ways.
    #[error("features of `{found}` cannot join features of `{expected}`")]
    OtherFeatures {
        /// Features of the first set.
        expected: String,
        /// Features of the second set.
        found: String,
    },
    /// One image counted twice.
    #[error("image {index} is in two parts")]
    Twice {
        /// Its number.
        index: u64,
    },
    /// A saved state that cannot be read.
    #[error("saved statistics: {0}")]
    Saved(String),
    /// A part of a file with something wrong in it.
    #[error("`{path}`{part}")]
    InFilePart {
        /// The file.
        path: std::path::PathBuf,
        /// The part, behind a colon.
        part: &'static str,
        /// The error.
        #[source]
        error: Box<Error>,
    },
    /// A score that is not a number.
    #[error("{name} is not a number")]
    NotANumber {
        /// The score.
        name: String,
    },
    /// A score that images cannot have.
    #[error("{name} is {found}")]
    TooLarge {
        /// The score.
        name: String,
        /// The number found.
        found: String,
    },
    /// Nothing to compute a score of.
    #[error("{0}")]
    Nothing(&'static str),
    /// A metric that cannot be computed.
    #[error("cannot compute {metric}")]
    Compute {
        /// The metric.
        metric: &'static str,
        /// The reason.
        #[source]
        error: Box<Error>,
    },
    /// A bug.
    #[error("internal error: {0}")]
    Internal(&'static str),
    /// A request that cannot be met.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Outputs of a network that are not finite.
    #[error(transparent)]
    NonFinite(#[from] base::finite::NonFinite),
    /// Images or codes of another form.
    #[error(transparent)]
    Type(#[from] base::TypeError),
    /// A frozen network that cannot be opened or run.
    #[error(transparent)]
    Network(#[from] backbones::Error),
    /// An error from another process.
    #[error(transparent)]
    Dist(#[from] dist::Error),
    /// A file of tensors that cannot be read or written.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// A source of images that failed.
    #[error("{0}")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// JSON that cannot be read or written.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A thumbnail that cannot be written.
    #[error(transparent)]
    Image(#[from] image::ImageError),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// An `.npz` that cannot be read or written.
    #[error(transparent)]
    Npz(#[from] base::npz::NpzError),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::Shape { .. } => vec!["crop or resize both to one size first".into()],
            Error::Dimension { .. } => vec!["both sets must come from one layer of one network".into()],
            Error::NotFinite { .. } => vec!["find the image of that row; its features are damaged".into()],
            Error::NotStatistics { .. } | Error::Statistics { .. } => {
                vec!["`gen eval stats` makes statistics of images".into()]
            }
            Error::InFile { error, .. } | Error::InFilePart { error, .. } | Error::Compute { error, .. } => {
                error.hints()
            }
            Error::NotANumber { .. } => {
                vec!["some image or weight holds values that are not finite".into()]
            }
            Error::TooLarge { .. } => vec![
                "the numbers that it is computed from are too large to be of images; look at their file"
                    .into(),
            ],
            Error::Job(e) => e.hints(),
            Error::NonFinite(e) => e.hints(),
            Error::Network(e) => e.hints(),
            Error::Dist(e) => e.hints(),
            Error::Weights(e) => e.hints(),
            Error::Npz(e) => e.hints(),
            Error::Twice { .. } => vec!["give each shard once".into()],
            _ => vec![],
        }
    }
}
