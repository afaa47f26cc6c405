//! Several codes per pass of the network, and the very codes that one per pass would give.
//!
//! Speculative Jacobi decoding (Teng et al., 2024, arXiv 2410.01699) with coupled draws: guesses of the next codes
//! go through the network together; the codes drawn after right guesses are right themselves, and the others
//! are the next pass's guesses. A code is a fixed function of its logits and of Gumbel noise that belongs to its
//! place in the image, so the result is, whatever was guessed, the sequence of [`Draw::Gumbel`], up to the rounding
//! of the network; and since a small change of the logits seldom moves the best code, guesses come right early.
//!
//! R rows of the network (with and without condition), K codes of a pass, V vocabulary, N codes per image

use ar_model::{AutoregressiveModel, Conditioning};
use base::{Codes, SampleStream};
use tch::{Kind, Tensor};

use crate::decode::{check_batch, guide_step};
use crate::{Draw, Error, Result, Sampler, SamplingConfig, choose};

impl<M: AutoregressiveModel> Sampler<'_, M> {
    /// The codes of [`Sampler::generate`] with [`Draw::Gumbel`], and how often the network ran for them. Images are made
    /// one by one, for how many guesses come right differs among them. `window` is the number of codes of
    /// a pass, from 1.
    ///
    /// # Errors
    /// As of [`Sampler::generate`], and a window of 0.
    pub fn generate_speculatively(
        &mut self,
        cond: &Conditioning,
        config: &SamplingConfig,
        streams: &[SampleStream],
        window: usize,
    ) -> Result<(Codes, usize)> {
        config.validate()?;
        check_batch(cond.batch_size(), &Draw::Gumbel(streams))?;
        self.check(cond)?;
        if window == 0 {
            return Err(Error::Setting { what: "the window", found: 0.0, expected: "1 or more" });
        }
        let model = self.model;
        let (mut codes, mut passes) = (vec![], 0);
        for (i, &stream) in streams.iter().enumerate() {
            let one = cond.select(&Tensor::from_slice(&[i as i64]));
            let rows = self.with_null(&one, config.guidance.active())?;
            let image = Image::new(model, config, stream);
            let image = self.with_cache(rows.batch_size(), |kept| {
                tch::no_grad(|| image.draw(&rows, window, &mut kept.cache))
            })?;
            codes.extend(image.codes);
            passes += image.passes;
        }
        let shape = [streams.len() as i64, model.spec().num_tokens];
        Ok((Codes::new(Tensor::from_slice(&codes).view(shape))?, passes))
    }
}

/// An image being drawn.
struct Image<'a, M> {
    model: &'a M,
    config: &'a SamplingConfig,
    stream: SampleStream,
    /// Known for good.
    codes: Vec<i64>,
    /// Of the codes that follow.
    guesses: Vec<i64>,
    passes: usize,
}

impl<'a, M: AutoregressiveModel> Image<'a, M> {
    fn new(model: &'a M, config: &'a SamplingConfig, stream: SampleStream) -> Self {
        Image { model, config, stream, codes: vec![], guesses: vec![], passes: 0 }
    }

    fn draw(mut self, rows: &Conditioning, window: usize, cache: &mut M::Cache) -> Result<Self> {
        let steps = self.model.spec().num_tokens as usize;
        let first = self.model.prefill(rows, cache); // (R, V)
        let mut logits = self.guided(&first.unsqueeze(1)); // (K, V)
        self.codes = self.choose(&logits, 0);
        self.check(0)?;
        self.passes = 1;
        while self.codes.len() < steps {
            let size = window.min(steps - self.codes.len());
            self.guess(&logits, size - 1);
            logits = self.pass(rows.batch_size(), cache);
            let drawn = self.choose(&logits, self.codes.len());
            let right = self.guesses.iter().zip(&drawn).take_while(|(guess, code)| guess == code).count();
            let known = self.codes.len();
            self.codes.extend(&drawn[..=right]);
            self.check(known)?;
            // What follows a wrong guess may be anything.
            self.guesses = drawn[right + 1..].iter().map(|&code| code.max(0)).collect();
        }
        Ok(self)
    }

    /// Refuses a code from number `from` on that was drawn from logits that are not finite.
    fn check(&self, from: usize) -> Result<()> {
        match self.codes[from..].iter().position(|&code| code == choose::NOT_FINITE) {
            Some(i) => Err(Error::NotFinite { image: self.stream.index, step: from + i }),
            None => Ok(()),
        }
    }

    /// Keeps or makes `n` guesses, the new ones from the last logits there are. (The last code of all is nobody's input.)
    fn guess(&mut self, logits: &Tensor, n: usize) {
        self.guesses.truncate(n);
        let last = logits.narrow(0, logits.size()[0] - 1, 1);
        while self.guesses.len() < n {
            let guess = self.choose(&last, self.codes.len() + self.guesses.len());
            self.guesses.extend(guess.iter().map(|&code| code.max(0)));
        }
    }

    /// Runs the last known code and the guesses. → (K, V) guided logits
    fn pass(&mut self, rows: i64, cache: &mut M::Cache) -> Tensor {
        self.passes += 1;
        let known = self.codes.len();
        let input: Vec<i64> = self.codes[known - 1..].iter().chain(&self.guesses).copied().collect();
        let input = Tensor::from_slice(&input).unsqueeze(0).expand([rows, input.len() as i64], false);
        let position = self.model.spec().prefix_len + known as i64 - 1;
        let logits = self.model.decode_chunk(&input, position, cache);
        self.guided(&logits)
    }

    /// (R, K, V) logits of the codes from the first unknown one on → (K, V).
    fn guided(&self, logits: &Tensor) -> Tensor {
        let (known, steps) = (self.codes.len(), self.model.spec().num_tokens as usize);
        let one = |k| guide_step(&logits.select(1, k), 1, self.config, known + k as usize, steps);
        Tensor::cat(&(0..logits.size()[1]).map(one).collect::<Vec<_>>(), 0)
    }

    /// (K, V) guided logits of the codes from number `from` on → K codes.
    fn choose(&self, guided: &Tensor, from: usize) -> Vec<i64> {
        let codes = if self.config.takes_the_best() {
            choose::marked(&choose::greedy(guided), guided)
        } else {
            let places = from..from + guided.size()[0] as usize;
            let places: Vec<_> = places.map(|place| self.stream.codes(place as u64)).collect();
            choose::gumbel_max(guided, &places, self.config)
        };
        Vec::try_from(codes.view(-1).to_kind(Kind::Int64)).expect("codes are int64")
    }
}
