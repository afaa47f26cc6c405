//! What can be wrong with images that are to be compared.

use base::Hint;

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
}

impl Hint for Error {
    fn hints(&self) -> Vec<String> {
        match self {
            Error::Shape { .. } => vec!["crop or resize both to one size first".into()],
            Error::TooSmall { .. } => vec![],
        }
    }
}
