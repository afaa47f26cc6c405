//! Images of a model that is not loaded from files, such as one in training.

use ar_model::{AutoregressiveModel, Conditioning};
use base::{Codes, SampleStream};
use sampler::{DecodeMode, Pipeline, RandomSource, SamplingConfig};
use settings::SamplingSettings;
use tokenizer::Tokenizer;

use crate::error::Result;
use crate::picture::Picture;

/// Images of a model, and their codes.
#[derive(Debug)]
pub struct Preview {
    /// One picture for each condition.
    pub pictures: Vec<Picture>,
    /// (B, N) codes.
    pub codes: Codes,
}

/// Draws images of `count` conditions at the published settings, each a function of the seed and
/// its number alone.
///
/// # Errors
/// Returns an error if the models do not go together, or an image cannot be made.
pub fn preview<M: AutoregressiveModel, T: Tokenizer>(
    model: &M,
    tokenizer: &T,
    cond: &Conditioning,
    count: usize,
    seed: u64,
) -> Result<Preview> {
    let streams: Vec<SampleStream> = (0..count as u64).map(|index| SampleStream { seed, index }).collect();
    let config = SamplingConfig::from_settings(SamplingSettings::published())?;
    let (generation, images) = Pipeline::new(model, tokenizer)?.images(
        cond,
        &config,
        RandomSource::Streams(&streams),
        DecodeMode::Stepwise,
    )?;
    Ok(Preview { pictures: Picture::from_batch(&images.to_u8())?, codes: generation.codes })
}
