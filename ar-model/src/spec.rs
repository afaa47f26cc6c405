//! Sizes of a transformer that the sampler needs.

/// Sizes of a transformer's codes and conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArSpec {
    /// Number of different codes (V).
    pub vocab_size: i64,
    /// Codes of one image (N).
    pub num_tokens: i64,
    /// Positions before the first code (T).
    pub prefix_len: i64,
    /// Number of classes, for class conditioning.
    pub num_classes: Option<i64>,
}
