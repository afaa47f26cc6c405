//! The interface of a quantizer, in fp32 whatever surrounds it.
//!
//! B batch, N codes of an image, D code width

use base::{Codes, Mode, Scope};
use tch::Tensor;

use crate::error::Result;

/// Settings from which a quantizer is built.
pub trait QuantizerSettings {
    /// Number of codes (V).
    fn codebook_size(&self) -> i64;
    /// Width of a code vector (D).
    fn code_dim(&self) -> i64;
    /// Floating-point operations of choosing the code of one vector.
    fn encode_flops(&self) -> f64;
    /// Bytes that a training pass keeps for the backward pass, for each vector, beside the vectors
    /// themselves.
    fn activation_bytes(&self) -> f64;
    /// Checks the settings; the sizes are known to be positive.
    ///
    /// # Errors
    /// Returns an error if no quantizer can be built from them.
    fn check(&self) -> Result<()>;
    /// The quantizer, with its variables under `p`.
    fn build(&self, p: &Scope) -> Box<dyn Quantizer>;
}

/// Latents ⇄ codes.
pub trait Quantizer: std::fmt::Debug + Send {
    /// (B, N, D) → codes (B, N) int64.
    fn encode(&self, z: &Tensor) -> Tensor;
    /// Codes → their exact vectors, (B, N, D).
    fn lookup(&self, codes: &Codes) -> Tensor;
    /// (B, N, D) → code vectors with gradient, codes and losses. [`Mode::Train`] updates the
    /// record that [`Quantizer::usage`] reads.
    fn forward(&self, z: &Tensor, mode: Mode) -> Quantized;
    /// Checks the parameters; with one that is not finite, any code might be chosen.
    ///
    /// # Errors
    /// Returns an error if one is not finite.
    fn check_finite(&self) -> Result<()> {
        Ok(())
    }
    /// Share of the codes that recent training used, if the quantizer keeps a record.
    fn usage(&self) -> Option<f64> {
        None
    }
}

/// A pass through the quantizer.
#[derive(Debug)]
pub struct Quantized {
    /// (B, N, D): the chosen code vectors, carrying the estimator's gradient. Under the rotation
    /// trick they differ from the codebook rows by up to 5e-6, in evaluation too.
    pub z: Tensor,
    /// (B, N) int64.
    pub codes: Tensor,
    /// Loss terms.
    pub losses: QuantizerLosses,
}

/// Loss terms of a quantizer by name, already weighted: the trainer adds them as they are.
#[derive(Debug, Default)]
pub struct QuantizerLosses(Vec<(&'static str, Tensor)>);

impl QuantizerLosses {
    /// Adds a term.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Tensor) -> Self {
        self.0.push((name, value));
        self
    }

    /// A term by its name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }
}

impl IntoIterator for QuantizerLosses {
    type Item = (&'static str, Tensor);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
