//! Loss terms: pure functions of tensors, and the named sum of a phase.

pub mod adversarial;
pub mod language;
pub mod lecam;
pub mod perceptual;
pub mod reconstruction;
pub mod semantic;

use tch::{Kind, Tensor};

/// The named terms of one phase and their weighted sum.
#[derive(Debug)]
pub struct Losses {
    terms: Vec<(&'static str, Tensor)>,
    total: Option<Tensor>,
}

impl Default for Losses {
    fn default() -> Self {
        Self::new()
    }
}

impl Losses {
    /// No terms yet.
    pub fn new() -> Self {
        Losses { terms: vec![], total: None }
    }

    /// Adds `weight · value` to the sum; the unweighted scalar is logged.
    pub fn add(&mut self, name: &'static str, value: Tensor, weight: f64) {
        let value = value.to_kind(Kind::Float);
        self.terms.push((name, value.detach()));
        self.sum(if weight == 1.0 { value } else { value * weight });
    }

    /// [`Losses::add`] with a weight that is the product of a number and a scalar on the device.
    pub fn add_scaled(&mut self, name: &'static str, value: Tensor, weight: f64, scale: &Tensor) {
        self.terms.push((name, value.detach().to_kind(Kind::Float)));
        self.sum(value.to_kind(Kind::Float) * scale.detach() * weight);
    }

    fn sum(&mut self, weighted: Tensor) {
        self.total = Some(match self.total.take() {
            Some(sum) => sum + weighted,
            None => weighted,
        });
    }

    /// Logs a scalar that is not part of the sum, such as codebook usage.
    pub fn observe(&mut self, name: &'static str, value: &Tensor) {
        self.terms.push((name, value.detach().to_kind(Kind::Float)));
    }

    /// The unweighted terms and observations, detached, in the order they were added.
    pub fn terms(&self) -> &[(&'static str, Tensor)] {
        &self.terms
    }

    /// The weighted sum, to be differentiated.
    pub fn total(&self) -> Option<&Tensor> {
        self.total.as_ref()
    }
}
