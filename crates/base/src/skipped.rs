//! Inputs that a job skips.

use serde::{Deserialize, Serialize};

/// An input that could not be used, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name, or its place in the folder.
    pub input: String,
    /// The reason in one sentence.
    pub error: String,
}
