//! Several codes per forward pass, with the same result as one code per pass.
//!
//! Speculative Jacobi decoding (Teng et al., 2024, arXiv 2410.01699) with coupled noise: one
//! forward pass verifies a draft of the next codes; the codes sampled after accepted ones are
//! final, and the others are the next pass's draft. A code is a fixed function of its logits and of
//! Gumbel noise that belongs to its position in the image, so the result is, whatever the draft,
//! the sequence of [`crate::RandomSource::Gumbel`], up to the rounding of the network; and since a
//! small change of the logits seldom changes the code, drafts are accepted early.
//!
//! R rows of the network (with and without condition), K codes of a pass, V vocabulary, N codes per
//! image

use ar_model::{AutoregressiveModel, Conditioning};
use base::SampleStream;
use tch::{Kind, Tensor};

use crate::batch::apply_cfg;
use crate::config::SamplingConfig;
use crate::error::{Error, Result};
use crate::sample::{self, RandomInputs};

/// An image being decoded.
pub(crate) struct JacobiDecoder<'a, M> {
    model: &'a M,
    config: &'a SamplingConfig,
    stream: SampleStream,
    /// Final codes.
    pub codes: Vec<i64>,
    /// Proposed codes after them.
    draft: Vec<i64>,
    /// Forward passes so far.
    pub passes: usize,
}

impl<'a, M: AutoregressiveModel> JacobiDecoder<'a, M> {
    /// A decoder without codes.
    pub fn new(model: &'a M, config: &'a SamplingConfig, stream: SampleStream) -> Self {
        JacobiDecoder { model, config, stream, codes: vec![], draft: vec![], passes: 0 }
    }

    /// Decodes all N codes of one image with condition `rows`, up to `window` codes per pass.
    ///
    /// # Errors
    /// Returns an error if logits are not finite.
    pub fn decode(mut self, rows: &Conditioning, window: usize, cache: &mut M::Cache) -> Result<Self> {
        let steps = self.model.spec().num_tokens as usize;
        let first = self.model.prefill(rows, cache); // (R, V)
        let mut logits = self.guided(&first.unsqueeze(1)); // (K, V)
        self.codes = self.sample(&logits, 0);
        self.check(0)?;
        self.passes = 1;
        while self.codes.len() < steps {
            let size = window.min(steps - self.codes.len());
            self.propose(&logits, size - 1);
            logits = self.verify(rows.batch_size(), cache);
            let drawn = self.sample(&logits, self.codes.len());
            let accepted = self.draft.iter().zip(&drawn).take_while(|(draft, code)| draft == code).count();
            let known = self.codes.len();
            self.codes.extend(&drawn[..=accepted]);
            self.check(known)?;
            // Codes after a rejected one may be NOT_FINITE.
            self.draft = drawn[accepted + 1..].iter().map(|&code| code.max(0)).collect();
        }
        Ok(self)
    }

    /// Returns an error if a code from number `from` on was sampled from logits that are not
    /// finite.
    fn check(&self, from: usize) -> Result<()> {
        match self.codes[from..].iter().position(|&code| code == sample::NOT_FINITE) {
            Some(i) => Err(Error::NotFinite { image: self.stream.index, step: from + i }),
            None => Ok(()),
        }
    }

    /// Truncates or extends the draft to `n` codes, new ones sampled from the last known logits.
    /// (The last code of the image is never an input.)
    fn propose(&mut self, logits: &Tensor, n: usize) {
        self.draft.truncate(n);
        let last = logits.narrow(0, logits.size()[0] - 1, 1);
        while self.draft.len() < n {
            let proposed = self.sample(&last, self.codes.len() + self.draft.len());
            self.draft.extend(proposed.iter().map(|&code| code.max(0)));
        }
    }

    /// Runs the last final code and the draft → guided logits (K, V).
    fn verify(&mut self, rows: i64, cache: &mut M::Cache) -> Tensor {
        self.passes += 1;
        let known = self.codes.len();
        let input: Vec<i64> = self.codes[known - 1..].iter().chain(&self.draft).copied().collect();
        let input = Tensor::from_slice(&input).unsqueeze(0).expand([rows, input.len() as i64], false);
        let position = self.model.spec().prefix_len + known as i64 - 1;
        let logits = self.model.decode_chunk(&input, position, cache);
        self.guided(&logits)
    }

    /// Guides the logits (R, K, V) of the codes from the first unknown one on → (K, V).
    fn guided(&self, logits: &Tensor) -> Tensor {
        let (known, steps) = (self.codes.len(), self.model.spec().num_tokens as usize);
        let one = |k| apply_cfg(&logits.select(1, k), 1, &self.config.guidance, known + k as usize, steps);
        Tensor::cat(&(0..logits.size()[1]).map(one).collect::<Vec<_>>(), 0)
    }

    /// (K, V) guided logits of the codes from number `from` on → K codes.
    fn sample(&self, guided: &Tensor, from: usize) -> Vec<i64> {
        let numbers = from..from + guided.size()[0] as usize;
        let streams = numbers.map(|number| self.stream.codes(number as u64)).collect();
        let codes = sample::sample(guided, self.config, &RandomInputs::Gumbel(streams));
        Vec::try_from(codes.view(-1).to_kind(Kind::Int64)).expect("codes are int64")
    }
}
