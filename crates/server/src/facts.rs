//! Facts of a request for its line in the log.

/// Facts that a handler leaves in its response's extensions.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The model.
    pub model: String,
    /// Number of images.
    pub images: usize,
    /// The prompt, where the log may have it.
    pub prompt: Option<String>,
}
