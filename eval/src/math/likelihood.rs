//! Likelihood of codes by a transformer: the validation loss of AR models, and scores that follow
//! from it.
//!
//! B images, N codes of an image, V codes of the vocabulary

use base::Codes;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::math::pixels::to_vec;
use crate::{Error, Result};

/// Negative log-likelihood of each image's codes in nats, summed over its codes, (B) float64, from
/// teacher-forced logits (B, N, V). Log-softmax in fp32, as the training loss has it; the sum in
/// float64.
pub fn code_nats(logits: &Tensor, codes: &Codes) -> Result<Tensor> {
    let size = logits.size();
    let (b, n) = codes.tensor().size2()?;
    if size.len() != 3 || size[..2] != [b, n] {
        return Err(Error::Shape { expected: vec![b, n, -1], found: size });
    }
    if let Some((low, high)) = codes.range()
        && (low < 0 || high >= size[2])
    {
        return Err(Error::CodeRange { code: if low < 0 { low } else { high }, size: size[2] });
    }
    let index = codes.tensor().to_device(logits.device()).unsqueeze(-1);
    let log_p = logits.log_softmax(-1, Kind::Float).gather(-1, &index, false).squeeze_dim(-1);
    Ok(-log_p.sum_dim_intlist([1i64].as_slice(), false, Kind::Double))
}

/// Sums of nats over images and codes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Likelihood {
    nats: f64,
    codes: u64,
    images: u64,
}

/// Scores of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LikelihoodScores {
    /// Cross-entropy of a code, nats: the validation loss. The mean over codes, so images of any
    /// length weigh by theirs.
    pub nats_per_code: f64,
    /// Cross-entropy of all codes of an image, bits, mean over images.
    pub bits_per_image: f64,
    /// `exp(nats_per_code)`: among how many equally likely codes the model is as unsure.
    pub perplexity: f64,
}

impl Likelihood {
    /// Adds an image with `codes` codes.
    pub fn add(&mut self, nats: f64, codes: u64) {
        self.nats += nats;
        self.codes += codes;
        self.images += 1;
    }

    /// Adds a batch of [`code_nats`].
    pub fn update(&mut self, nats: &Tensor, codes: u64) -> Result<()> {
        to_vec(nats)?.into_iter().for_each(|n| self.add(n, codes));
        Ok(())
    }

    /// Adds the images of another.
    pub fn merge(&mut self, other: &Likelihood) {
        self.nats += other.nats;
        self.codes += other.codes;
        self.images += other.images;
    }

    /// The scores; `None` before the first code.
    pub fn scores(&self) -> Option<LikelihoodScores> {
        (self.codes > 0).then(|| {
            let nats_per_code = self.nats / self.codes as f64;
            LikelihoodScores {
                nats_per_code,
                bits_per_image: self.nats / self.images as f64 / std::f64::consts::LN_2,
                perplexity: nats_per_code.exp(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn codes(values: &[i64], n: i64) -> Codes {
        Codes::new(Tensor::from_slice(values).view([-1, n])).unwrap()
    }

    #[test]
    fn equal_logits_are_as_unsure_as_the_vocabulary_is_large() {
        let logits = Tensor::full([2, 4, 8], 3.0, (Kind::Float, Device::Cpu));
        let mut all = Likelihood::default();
        assert!(all.scores().is_none());
        all.update(&code_nats(&logits, &codes(&[0, 1, 2, 3, 4, 5, 6, 7], 4)).unwrap(), 4).unwrap();
        let s = all.scores().unwrap();
        assert!((s.nats_per_code - 8f64.ln()).abs() < 1e-6);
        assert!((s.bits_per_image - 12.0).abs() < 1e-5 && (s.perplexity - 8.0).abs() < 1e-5);
    }

    #[test]
    fn the_true_codes_probability_counts_and_parts_give_the_whole() {
        // p = (1/4, 3/4) at every place.
        let logits = Tensor::from_slice(&[1f32.ln(), 3f32.ln()]).view([1, 1, 2]).expand([2, 2, 2], false);
        let nats = code_nats(&logits, &codes(&[0, 1, 1, 1], 2)).unwrap();
        let expected = [4f64.ln() + (4f64 / 3.0).ln(), 2.0 * (4f64 / 3.0).ln()];
        for (found, expected) in to_vec(&nats).unwrap().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        let (mut whole, mut a, mut b) = Default::default();
        Likelihood::update(&mut whole, &nats, 2).unwrap();
        Likelihood::update(&mut a, &nats.narrow(0, 0, 1), 2).unwrap();
        Likelihood::update(&mut b, &nats.narrow(0, 1, 1), 2).unwrap();
        a.merge(&b);
        assert_eq!(a, whole);
    }

    #[test]
    fn other_shapes_and_foreign_codes_are_refused() {
        let logits = Tensor::zeros([1, 2, 8], (Kind::Float, Device::Cpu));
        assert!(code_nats(&logits, &codes(&[1, 2, 3], 3)).unwrap_err().to_string().contains("[1, 3, -1]"));
        assert!(code_nats(&logits, &codes(&[1, 8], 2)).unwrap_err().to_string().contains('8'));
    }
}
