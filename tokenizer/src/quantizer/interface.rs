//! The interface of a quantizer, in fp32 whatever surrounds it.
//!
//! B batch, N codes of an image, D code width

use base::{Codes, Mode};
use tch::Tensor;

use crate::error::Result;

/// Latents ⇄ codes.
pub trait Quantizer: std::fmt::Debug + Send {
    /// (B, N, D) → codes (B, N) int64.
    fn encode(&self, z: &Tensor) -> Tensor;
    /// Codes → their exact vectors, (B, N, D).
    fn lookup(&self, codes: &Codes) -> Tensor;
    /// (B, N, D) → code vectors with gradient, codes and losses. [`Mode::Train`] updates what
    /// [`Quantizer::usage`] counts.
    fn forward(&self, z: &Tensor, mode: Mode) -> Quantized;
    /// Checks the parameters, with which any code might be chosen if they were not numbers.
    ///
    /// # Errors
    /// Returns an error if one is not finite.
    fn check_finite(&self) -> Result<()>;
    /// Share of the codes that recent training used.
    fn usage(&self) -> f64;
}

/// A pass through the quantizer.
#[derive(Debug)]
pub struct Quantized {
    /// (B, N, D): the chosen code vectors, carrying the estimator's gradient. Under the rotation trick they
    /// differ from the codebook rows by up to 5e-6, in evaluation too.
    pub z: Tensor,
    /// (B, N) int64.
    pub codes: Tensor,
    /// Loss terms.
    pub losses: QuantizerLosses,
}

/// Loss terms of the quantizer, already weighted: the trainer adds them as they are.
#[derive(Debug)]
pub struct QuantizerLosses {
    /// Moves codes to vectors.
    pub codebook: Tensor,
    /// Moves vectors to codes, times the commitment weight.
    pub commitment: Tensor,
    /// Confident single choices, even use overall; `None` at weight 0.
    pub entropy: Option<Tensor>,
}
