//! Adaptive layer norms, conditioned on the prefix (official `use_adaLN`, `use_simple_adaLN`; in no
//! release).
//!
//! B batch, D width. Shift, scale and gate of attention, then of the feed-forward.

use base::{Init, Scope};
use nn::Linear;
use tch::Tensor;

use crate::config::ModulationConfig;

const ZERO: Init = Init::Const(0.0);

fn projection(p: &Scope, width: i64, parts: i64) -> Linear {
    // Index 1 of a Sequential, whose index 0 is the SiLU. Zero, so that training starts from the
    // unmodulated model.
    Linear::new(&(p / 1), width, parts * width, ZERO, Some(ZERO))
}

/// Modulation of one layer.
#[derive(Debug)]
pub(crate) enum LayerModulation {
    None,
    AdaLn(Linear),
    Simple(Tensor), // (1, 1, 6, D)
}

impl LayerModulation {
    pub fn new(p: &Scope, width: i64, config: ModulationConfig) -> Self {
        match config {
            ModulationConfig::None => LayerModulation::None,
            ModulationConfig::AdaLn => {
                LayerModulation::AdaLn(projection(&(p / "adaLN_modulation"), width, 6))
            }
            ModulationConfig::SimpleAdaLn => {
                let init = Init::Normal { std: (width as f64).powf(-0.5) };
                LayerModulation::Simple(p.var("ada_gss", &[1, 1, 6, width], init))
            }
        }
    }

    /// Six (B, 1, D) tensors: shift, scale, gate for attention, then for the feed-forward.
    pub fn parts(&self, condition: &ModelCondition) -> Option<Vec<Tensor>> {
        match (self, condition) {
            (LayerModulation::AdaLn(linear), ModelCondition::AdaLn(cond)) => {
                Some(linear.forward(&cond.silu()).chunk(6, 2))
            }
            (LayerModulation::Simple(table), ModelCondition::Simple(shared)) => {
                Some((shared + table.to_kind(shared.kind())).unbind(2))
            }
            _ => None,
        }
    }
}

/// Condition in the form that layers take, computed once per pass.
#[derive(Debug)]
pub(crate) enum ModelCondition {
    None,
    AdaLn(Tensor),  // (B, 1, D)
    Simple(Tensor), // (B, 1, 6, D)
}

/// Modulation shared by all layers, and that of the final norm.
#[derive(Debug)]
pub(crate) struct ModelModulation {
    shared: Option<Linear>,
    last: Option<Linear>,
}

impl ModelModulation {
    pub fn new(p: &Scope, width: i64, config: ModulationConfig) -> Self {
        let simple = config == ModulationConfig::SimpleAdaLn;
        ModelModulation {
            shared: simple.then(|| projection(&(p / "adaLN"), width, 6)),
            last: (config != ModulationConfig::None).then(|| projection(&(p / "final_adaLN"), width, 2)),
        }
    }

    /// Whether decoding must keep the condition.
    pub fn needs_condition(&self) -> bool {
        self.last.is_some()
    }

    pub fn condition(&self, cond: Option<&Tensor>) -> ModelCondition {
        match (cond, &self.shared, &self.last) {
            (Some(cond), Some(shared), _) => {
                let (b, t, d) = cond.size3().expect("conditions are (B, 1, D)");
                ModelCondition::Simple(shared.forward(&cond.silu()).view([b, t, 6, d]))
            }
            (Some(cond), None, Some(_)) => ModelCondition::AdaLn(cond.shallow_clone()),
            _ => ModelCondition::None,
        }
    }

    /// Shift and scale of the final norm, (B, 1, D) each.
    pub fn last_parts(&self, cond: Option<&Tensor>) -> Option<Vec<Tensor>> {
        let (last, cond) = (self.last.as_ref()?, cond?);
        Some(last.forward(&cond.silu()).chunk(2, 2))
    }

    /// Modulates the final norm's output.
    pub fn finish(&self, x: Tensor, cond: Option<&Tensor>) -> Tensor {
        match self.last_parts(cond) {
            Some(parts) => modulate(&x, &parts[0], &parts[1]),
            None => x,
        }
    }
}

/// `x · (1 + scale) + shift`.
pub(crate) fn modulate(x: &Tensor, shift: &Tensor, scale: &Tensor) -> Tensor {
    x * (scale + 1.0) + shift
}
