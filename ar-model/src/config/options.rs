//! The part of a configuration that backends decide on.

use super::{ArConfig, Architecture, ConditioningConfig, ModulationConfig, PositionConfig};

/// Options that change what a network computes. What else a configuration holds are sizes and
/// numbers of any network, and rates of training. All code that computes logits by other means than
/// [`crate::Gpt::forward`] matches all of them.
pub(crate) struct Options {
    pub position: PositionConfig,
    pub conditioning: ConditioningConfig,
    #[expect(dead_code, reason = "all backends support it, and name it so that none forgets it")]
    pub qk_norm: bool,
    pub modulation: ModulationConfig,
}

impl ArConfig {
    /// Options of this network. A new key of the configuration does not compile until it is sorted
    /// here, and a new option not until every backend decides on it.
    pub(crate) fn options(&self) -> Options {
        let &ArConfig {
            kind: Architecture::Gpt,
            width: _,
            layers: _,
            heads: _,
            kv_heads: _,
            feed_forward_width: _,
            vocab_size: _,
            num_tokens: _,
            position,
            conditioning,
            rope_base: _,
            norm_eps: _,
            initializer_range: _,
            qk_norm,
            modulation,
            dropout: _,
        } = self;
        Options { position, conditioning, qk_norm, modulation }
    }
}
