//! Crops and flips, in ADM's and GigaTok's sequence: halve with BOX while the short side is at
//! least twice the target, BICUBIC to the target, crop.
//!
//! GigaTok `dataset/augmentation.py` (from OpenAI's guided-diffusion `image_datasets.py`).

use std::borrow::Cow;

use base::rng;
use image::{RgbImage, imageops};

use crate::resize::{Filter, Region, resize, resize_region};
use crate::{Error, Result};

/// Crop of a square from an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Crop {
    /// The middle, after the short side became the crop's side.
    Center,
    /// Anywhere, after the short side became a random length in `[ceil(side), ceil(side /
    /// min_fraction)]`.
    Random {
        /// The smallest share of the short side that is kept; GigaTok's is [`MIN_FRACTION`].
        min_fraction: f64,
    },
}

/// GigaTok's and ADM's random crop keeps at least 0.8 of the short side.
pub const MIN_FRACTION: f64 = 0.8;

/// From one stored image to the images that are batched.
pub trait Augment: Send + Sync {
    /// The side of the squares it makes.
    fn size(&self) -> u32;
    /// Number of views of each image.
    fn views(&self) -> usize;
    /// Makes them; all chance comes from `draws`.
    fn apply(&self, image: &RgbImage, draws: &mut Draws) -> Vec<RgbImage>;
    /// Refuses settings that cannot work.
    fn validate(&self) -> Result<()>;
}

/// From a stored image to a square of `size` pixels a side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transform {
    /// The square's side.
    pub size: u32,
    /// Place of the crop.
    pub crop: Crop,
    /// Mirror with probability 1/2.
    pub flip: bool,
}

impl Transform {
    /// For evaluation and extraction: centre crop, no flip.
    pub fn center(size: u32) -> Self {
        Transform { size, crop: Crop::Center, flip: false }
    }

    /// For training: random crop of at least 0.8 of the short side, and flip.
    pub fn random(size: u32) -> Self {
        Transform { size, crop: Crop::Random { min_fraction: MIN_FRACTION }, flip: true }
    }
}

impl Augment for Transform {
    fn size(&self) -> u32 {
        self.size
    }

    fn views(&self) -> usize {
        1
    }

    fn apply(&self, image: &RgbImage, draws: &mut Draws) -> Vec<RgbImage> {
        let mut out = match self.crop {
            Crop::Center => center_crop(image, self.size),
            Crop::Random { min_fraction } => random_crop(image, self.size, min_fraction, draws),
        };
        if self.flip && draws.below(2) == 1 {
            imageops::flip_horizontal_in_place(&mut out);
        }
        vec![out]
    }

    fn validate(&self) -> Result<()> {
        let fraction_ok = match self.crop {
            Crop::Center => true,
            Crop::Random { min_fraction } => min_fraction > 0.0 && min_fraction <= 1.0,
        };
        if self.size == 0 || !fraction_ok {
            return Err(Error::Settings(format!(
                "cannot crop with {self:?}: the size must be positive and min_fraction in (0, 1]"
            )));
        }
        Ok(())
    }
}

/// A stream of random integers that is a pure function of what it was made from.
#[derive(Debug, Clone)]
pub struct Draws {
    key: u64,
    next: u64,
}

impl Draws {
    /// The draws for one record in one epoch.
    pub fn new(seed: u64, epoch: u64, key_hash: u64) -> Self {
        const AUGMENT: u64 = 0xA0_66E7;
        Draws { key: rng::hash(seed, &[AUGMENT, epoch, key_hash]), next: 0 }
    }

    /// The next integer in `0..n`.
    pub fn below(&mut self, n: u32) -> u32 {
        self.next += 1;
        rng::below(self.key, &[self.next], u64::from(n)) as u32
    }
}

/// `center_crop_arr(image, size)`.
pub fn center_crop(image: &RgbImage, size: u32) -> RgbImage {
    let scaled = Scaled::new(image, size);
    scaled.crop(size, (scaled.height - size) / 2, (scaled.width - size) / 2)
}

/// `random_crop_arr(image, size)` with its three draws given: the short side after resizing, and
/// the crop's upper left corner.
pub fn crop_at(image: &RgbImage, size: u32, short: u32, y: u32, x: u32) -> RgbImage {
    Scaled::new(image, short).crop(size, y, x)
}

/// `random_crop_arr(image, size)`, drawing in the official order: short side, y, x.
fn random_crop(image: &RgbImage, size: u32, min_fraction: f64, draws: &mut Draws) -> RgbImage {
    let longest = (f64::from(size) / min_fraction).ceil() as u32;
    let scaled = Scaled::new(image, size + draws.below(longest - size + 1));
    let y = draws.below(scaled.height - size + 1);
    let x = draws.below(scaled.width - size + 1);
    scaled.crop(size, y, x)
}

/// An image that was halved as often as the rule requires, and the size to which BICUBIC will bring
/// it.
struct Scaled<'a> {
    halved: Cow<'a, RgbImage>,
    width: u32,
    height: u32,
}

impl<'a> Scaled<'a> {
    fn new(image: &'a RgbImage, short: u32) -> Self {
        let mut halved = Cow::Borrowed(image);
        while halved.width().min(halved.height()) >= 2 * short {
            halved = Cow::Owned(resize(&halved, halved.width() / 2, halved.height() / 2, Filter::Box));
        }
        // Python's `round(side * (short / min(sides)))`: half to even.
        let scale = f64::from(short) / f64::from(halved.width().min(halved.height()));
        let side = |s: u32| (f64::from(s) * scale).round_ties_even() as u32;
        let (width, height) = (side(halved.width()), side(halved.height()));
        Scaled { halved, width, height }
    }

    fn crop(&self, size: u32, y: u32, x: u32) -> RgbImage {
        let region = Region { x, y, width: size, height: size };
        resize_region(&self.halved, self.width, self.height, Filter::Bicubic, region)
    }
}
