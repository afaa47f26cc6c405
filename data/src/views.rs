//! Several views of each image: the fixed ones under which codes are stored, and random ones.

use image::{RgbImage, imageops};

use crate::transform::{Augment, Draws, Transform, center_crop};
use crate::{Error, Result};

/// Views of each image that are encoded, without randomness.
#[derive(Debug, Clone, PartialEq)]
pub enum Crops {
    /// The centre crop.
    Center,
    /// The centre crop and its mirror image.
    CenterAndFlip,
    /// [`ten_crop`] at each of these factors. Official training uses 1.1, LlamaGen's 1.1 and 1.05
    /// together.
    Ten(Vec<f64>),
}

/// Views of a size.
#[derive(Debug, Clone, PartialEq)]
pub struct Views {
    /// The squares' side.
    pub size: u32,
    /// Squares.
    pub crops: Crops,
}

const TEN: [&str; 5] = ["top left", "top right", "bottom left", "bottom right", "center"];

impl Views {
    /// A name for each view, such as `center` or `ten-crop 1.1: top left, mirrored`.
    pub fn names(&self) -> Vec<String> {
        let mirrored = |name: &String| format!("{name}, mirrored");
        match &self.crops {
            Crops::Center => vec!["center".into()],
            Crops::CenterAndFlip => vec!["center".into(), "center, mirrored".into()],
            Crops::Ten(factors) => {
                let five = |f: &f64| TEN.iter().map(|c| format!("ten-crop {f}: {c}")).collect::<Vec<_>>();
                let ten = |f| {
                    let five = five(f);
                    five.iter().cloned().chain(five.iter().map(mirrored)).collect::<Vec<_>>()
                };
                factors.iter().flat_map(ten).collect()
            }
        }
    }
}

impl Augment for Views {
    fn size(&self) -> u32 {
        self.size
    }

    fn views(&self) -> usize {
        match &self.crops {
            Crops::Center => 1,
            Crops::CenterAndFlip => 2,
            Crops::Ten(factors) => 10 * factors.len(),
        }
    }

    fn apply(&self, image: &RgbImage, _draws: &mut Draws) -> Vec<RgbImage> {
        match &self.crops {
            Crops::Center => vec![center_crop(image, self.size)],
            Crops::CenterAndFlip => {
                let one = center_crop(image, self.size);
                let mirrored = imageops::flip_horizontal(&one);
                vec![one, mirrored]
            }
            Crops::Ten(factors) => factors.iter().flat_map(|f| ten_crop(image, self.size, *f)).collect(),
        }
    }

    fn validate(&self) -> Result<()> {
        let factors_ok = match &self.crops {
            Crops::Ten(factors) => !factors.is_empty() && factors.iter().all(|f| (1.0..=4.0).contains(f)),
            _ => true,
        };
        if self.size == 0 || !factors_ok {
            let message =
                format!("cannot crop with {self:?}: the size must be positive and factors within 1 to 4");
            return Err(Error::Settings(message));
        }
        Ok(())
    }
}

/// Several random crops and flips of each image: the draws of training, in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomViews {
    /// Crop of each.
    pub transform: Transform,
    /// Number of views.
    pub views: usize,
}

impl Augment for RandomViews {
    fn size(&self) -> u32 {
        self.transform.size
    }

    fn views(&self) -> usize {
        self.views
    }

    fn apply(&self, image: &RgbImage, draws: &mut Draws) -> Vec<RgbImage> {
        (0..self.views).flat_map(|_| self.transform.apply(image, draws)).collect()
    }

    fn validate(&self) -> Result<()> {
        if self.views == 0 {
            return Err(Error::Settings("no views of an image are asked for; 1 is the least".into()));
        }
        self.transform.validate()
    }
}

/// The ten crops of the official code extraction: a centre crop of side `int(size * factor)`, its
/// four corners and its centre, then the same five of the mirrored square (torchvision's
/// `TenCrop`).
pub fn ten_crop(image: &RgbImage, size: u32, factor: f64) -> Vec<RgbImage> {
    let side = (f64::from(size) * factor) as u32;
    let square = center_crop(image, side);
    let mirrored = imageops::flip_horizontal(&square);
    [&square, &mirrored].into_iter().flat_map(|s| five_crop(s, size)).collect()
}

/// torchvision's `FiveCrop`: top left, top right, bottom left, bottom right, centre.
fn five_crop(square: &RgbImage, size: u32) -> [RgbImage; 5] {
    let end = square.width() - size;
    let middle = (f64::from(end) / 2.0).round_ties_even() as u32; // Python's round: 12.5 → 12
    [(0, 0), (end, 0), (0, end), (end, end), (middle, middle)]
        .map(|(x, y)| imageops::crop_imm(square, x, y, size, size).to_image())
}
