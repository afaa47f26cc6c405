//! Sources of the images of a run: files here, models outside this crate.

use base::ImagesU8;

use crate::batch::{EvalBatch, ImagePair, Item};
use crate::image_set::ImageSet;
use crate::math::pixels::PixelPair;
use crate::{Error, Result};

/// A phase of a run: images that come in batches. Models implement it outside this crate.
pub trait ImageSource {
    /// Name under which progress is saved and shown.
    fn phase(&self) -> &'static str;

    /// Number of images.
    fn num_images(&self) -> u64;

    /// Sets that are read ahead on other threads, side by side; none for a model that makes its
    /// images.
    fn inputs(&self) -> Vec<Input> {
        vec![]
    }

    /// Makes a batch of the images read, one batch for each input. Without inputs the items are
    /// numbers, whose classes the source adds.
    ///
    /// # Errors
    /// Returns an error if a model fails or images do not form a batch.
    fn batch(&self, items: Vec<Item>, images: Vec<ImagesU8>) -> Result<EvalBatch>;
}

/// A phase of a run.
pub type Phase<'a> = Box<dyn ImageSource + 'a>;

impl<S: ImageSource + ?Sized> ImageSource for &S {
    fn phase(&self) -> &'static str {
        (**self).phase()
    }

    fn num_images(&self) -> u64 {
        (**self).num_images()
    }

    fn inputs(&self) -> Vec<Input> {
        (**self).inputs()
    }

    fn batch(&self, items: Vec<Item>, images: Vec<ImagesU8>) -> Result<EvalBatch> {
        (**self).batch(items, images)
    }
}

/// A side of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Images judged.
    Samples,
    /// Images compared with.
    Reference,
}

/// A set that a source reads.
#[derive(Clone)]
pub struct Input {
    /// The images.
    pub set: ImageSet,
    /// Side that its images count for; none for images that only a model sees.
    pub side: Option<Side>,
}

impl Input {
    /// A set and its side.
    pub fn new(set: &ImageSet, side: Side) -> Self {
        Input { set: set.clone(), side: Some(side) }
    }
}

/// Takes the next of a source's batches.
///
/// # Errors
/// Returns an error if there are fewer batches than inputs.
pub fn next_input(images: &mut impl Iterator<Item = ImagesU8>) -> Result<ImagesU8> {
    images.next().ok_or(Error::Internal("a set is missing"))
}

/// Images in files, judged or compared with.
pub struct FileImages {
    set: ImageSet,
    side: Side,
}

impl FileImages {
    /// The images of a set as one side.
    pub fn new(set: &ImageSet, side: Side) -> Self {
        FileImages { set: set.clone(), side }
    }
}

impl ImageSource for FileImages {
    fn phase(&self) -> &'static str {
        match self.side {
            Side::Samples => "images",
            Side::Reference => "reference",
        }
    }

    fn num_images(&self) -> u64 {
        self.set.len() as u64
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::new(&self.set, self.side)]
    }

    fn batch(&self, items: Vec<Item>, images: Vec<ImagesU8>) -> Result<EvalBatch> {
        let images = next_input(&mut images.into_iter())?;
        Ok(match self.side {
            Side::Samples => EvalBatch::of_sets(items, Some(images), None),
            Side::Reference => EvalBatch::of_sets(items, None, Some(images)),
        })
    }
}

/// Images in files, each judged against its original.
pub struct FilePairs {
    /// Images judged.
    pub samples: ImageSet,
    /// Their originals in the same order.
    pub originals: ImageSet,
}

impl ImageSource for FilePairs {
    fn phase(&self) -> &'static str {
        "pairs"
    }

    fn num_images(&self) -> u64 {
        self.samples.len() as u64
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::new(&self.samples, Side::Samples), Input::new(&self.originals, Side::Reference)]
    }

    fn batch(&self, items: Vec<Item>, images: Vec<ImagesU8>) -> Result<EvalBatch> {
        let mut images = images.into_iter();
        let (samples, originals) = (next_input(&mut images)?, next_input(&mut images)?);
        let pair = ImagePair {
            pixels: PixelPair::stored(&samples, &originals)?,
            judged: samples.to_float(),
            originals: originals.to_float(),
        };
        Ok(EvalBatch { pair: Some(pair), ..EvalBatch::of_sets(items, Some(samples), Some(originals)) })
    }
}
