//! The part of a configuration that backends decide on.

use super::{ArConfig, Architecture, ConditioningConfig, ModulationConfig, PositionConfig};

/// Options that change what a network computes. What else a configuration holds are sizes and
/// numbers of any network, and rates of training. All code that computes logits by other means than
/// [`crate::Gpt::forward`] is decided on below, option by option: a new one, or a new variant of one,
/// does not compile until it is.
pub(crate) struct Options {
    pub position: PositionConfig,
    pub conditioning: ConditioningConfig,
    #[expect(dead_code, reason = "all support it, and name it so that none forgets it")]
    pub qk_norm: bool,
    pub modulation: ModulationConfig,
}

impl Options {
    /// The option that the CPU's kernels do not support, if there is one.
    pub(crate) fn unsupported_by_cpu(&self) -> Option<&'static str> {
        let Options {
            position: PositionConfig::Learned | PositionConfig::Rope2d,
            conditioning: ConditioningConfig::Class { .. } | ConditioningConfig::Text { .. },
            qk_norm: _,
            modulation: ModulationConfig::None | ModulationConfig::AdaLn | ModulationConfig::SimpleAdaLn,
        } = self;
        None
    }

    /// The option that the GPU's kernels do not support, if there is one.
    pub(crate) fn unsupported_by_gpu(&self) -> Option<&'static str> {
        let Options {
            position: PositionConfig::Learned | PositionConfig::Rope2d,
            conditioning: ConditioningConfig::Class { .. } | ConditioningConfig::Text { .. },
            qk_norm: _,
            modulation,
        } = self;
        match modulation {
            ModulationConfig::None => None,
            ModulationConfig::AdaLn | ModulationConfig::SimpleAdaLn => Some("adaptive norms"),
        }
    }

    /// Whether an option acts behind the output layer, where a loss in parts would miss it.
    pub(crate) fn act_behind_output(&self) -> bool {
        let Options { position: _, conditioning: _, qk_norm: _, modulation: _ } = self;
        false
    }
}

impl ArConfig {
    /// Options of this network. A new key of the configuration does not compile until it is sorted
    /// here.
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
