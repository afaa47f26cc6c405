//! Conditions → images.

use ar_model::{AutoregressiveModel, Conditioning};
use base::{Codes, Images};
use tokenizer::Tokenizer;

use crate::config::SamplingConfig;
use crate::error::{Error, Result};
use crate::sample::RandomSource;
use crate::sampler::{DecodeMode, Generation, Sampler};

/// A transformer and the tokenizer of its codes.
pub struct Pipeline<'m, M: AutoregressiveModel, T: Tokenizer> {
    sampler: Sampler<'m, M>,
    tokenizer: &'m T,
}

impl<'m, M: AutoregressiveModel, T: Tokenizer> Pipeline<'m, M, T> {
    /// Joins a transformer and a tokenizer.
    ///
    /// # Errors
    /// Returns an error if vocabulary and codebook, or the numbers of codes per image, differ.
    pub fn new(model: &'m M, tokenizer: &'m T) -> Result<Self> {
        let (ar, tok) = (model.spec(), tokenizer.spec());
        let codes =
            ("codes per image", ar.num_tokens, tok.num_tokens, tok.image_size_of(ar.num_tokens).is_some());
        let vocabulary =
            ("vocabulary size", ar.vocab_size, tok.codebook_size, ar.vocab_size == tok.codebook_size);
        for (what, model, tokenizer, fits) in [vocabulary, codes] {
            if !fits {
                return Err(Error::Mismatch { what, model, tokenizer });
            }
        }
        Ok(Pipeline { sampler: Sampler::new(model), tokenizer })
    }

    /// See [`Sampler::set_negative`].
    pub fn set_negative(&mut self, negative: Option<Conditioning>) {
        self.sampler.set_negative(negative);
    }

    /// Samples codes for a batch of conditions and decodes them. See [`Sampler::generate`].
    ///
    /// # Errors
    /// Returns the errors of [`Sampler::generate`], and an error if an image is not finite.
    pub fn images(
        &mut self,
        cond: &Conditioning,
        config: &SamplingConfig,
        source: RandomSource,
        mode: DecodeMode,
    ) -> Result<(Generation, Images)> {
        let generation = self.sampler.generate(cond, config, source, mode)?;
        let images = self.decode(&generation.codes, source)?;
        Ok((generation, images))
    }

    fn decode(&self, codes: &Codes, source: RandomSource) -> Result<Images> {
        let named = |e: tokenizer::Error| e.of_images(|i| format!("image {}", source.image(i)));
        Ok(self.tokenizer.decode(codes).map_err(named)?)
    }
}

/// Bicubic resize to `size` × `size` as in the published scripts: on the floats before rounding,
/// `align_corners` off, without antialiasing.
///
/// # Errors
/// Returns an error if a resized image is not finite.
pub fn resize(images: Images, size: i64) -> Result<Images> {
    let t = images.tensor();
    let (h, w) = (t.size()[2], t.size()[3]);
    if (h, w) == (size, size) {
        return Ok(images);
    }
    let t = t.to_kind(tch::Kind::Float).upsample_bicubic2d([size, size], false, None, None);
    Ok(Images::new(t)?)
}
