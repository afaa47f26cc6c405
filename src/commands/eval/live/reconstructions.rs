//! A tokenizer's reconstructions.

use anyhow::Result;
use base::ImagesU8;
use eval::{EvalBatch, ImagePair, ImageSet, ImageSource, Input, Item, PixelPair, Side, next_input};

use super::error::{failed, named};
use super::reconstructor::Reconstructor;

/// A tokenizer's reconstructions of images, and what they are compared with.
pub struct Reconstructions<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Reconstructor,
    /// Images at its size.
    pub images: &'a ImageSet,
    /// Side to which reconstructions and originals are resized before they are scored, if it is not
    /// the tokenizer's.
    pub side: Option<u32>,
    /// The set compared with.
    pub reference: Originals,
}

/// The set that reconstructions are compared with.
pub enum Originals {
    /// A reference of its own.
    Elsewhere,
    /// The images that the tokenizer is given.
    AsGiven,
    /// The same images, cropped to the size of the scores.
    Cropped(ImageSet),
}

impl Reconstructions<'_> {
    fn reconstruct(&self, items: Vec<Item>, images: Vec<ImagesU8>) -> Result<EvalBatch> {
        let mut images = images.into_iter();
        let given = next_input(&mut images)?;
        let mut originals = given.to_float();
        let (mut decoded, codes) = self.tokenizer.run(&originals).map_err(|e| named(e, &items))?;
        if let Some(side) = self.side {
            // As LlamaGen's script: both in floating point, and neither clamped first.
            decoded = sampler::resize(decoded, i64::from(side))?;
            originals = sampler::resize(originals, i64::from(side))?;
        }
        let samples = decoded.to_u8();
        let pixels = PixelPair::published(&samples, &originals)?;
        // LPIPS sees the decoder's output as it is, neither clamped nor rounded.
        let pair = Some(ImagePair { pixels, judged: decoded, originals });
        let reference = match self.reference {
            Originals::Elsewhere => None,
            Originals::AsGiven => Some(given),
            Originals::Cropped(_) => Some(next_input(&mut images)?),
        };
        Ok(EvalBatch { pair, codes: Some(codes), ..EvalBatch::of_sets(items, Some(samples), reference) })
    }
}

impl ImageSource for Reconstructions<'_> {
    fn phase(&self) -> &'static str {
        "reconstructions"
    }

    fn num_images(&self) -> u64 {
        self.images.len() as u64
    }

    fn inputs(&self) -> Vec<Input> {
        match &self.reference {
            Originals::Elsewhere => vec![Input::new(self.images, Side::Samples)],
            Originals::AsGiven => vec![Input::new(self.images, Side::Reference)],
            Originals::Cropped(originals) => {
                vec![Input { set: self.images.clone(), side: None }, Input::new(originals, Side::Reference)]
            }
        }
    }

    fn batch(&self, items: Vec<Item>, images: Vec<ImagesU8>) -> eval::Result<EvalBatch> {
        self.reconstruct(items, images).map_err(failed)
    }
}
