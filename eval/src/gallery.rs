//! Thumbnails for the report, small enough to be kept in memory.

use std::collections::BTreeMap;

use base::ImagesU8;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data::resize::{Filter, resize};
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::Result;
use crate::batch::EvalBatch;

/// Longest side of a thumbnail in pixels.
const SIDE: u32 = 128;
/// Quality of the JPEGs.
const QUALITY: u8 = 92;
/// Images of the sheet.
const SHEET: usize = 64;
/// Images of a class, and classes.
const OF_A_CLASS: usize = 6;
const CLASSES: usize = 1000;

/// An image of the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thumb {
    /// Its number.
    pub index: u64,
    /// Its name.
    pub name: String,
    /// The image as a JPEG in base64.
    pub image: String,
    /// Its original, also as a JPEG.
    pub original: Option<String>,
}

/// The first images, and the first of each class.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Gallery {
    /// First images of the set.
    pub sheet: Vec<Thumb>,
    /// First images of each class.
    pub classes: BTreeMap<i64, Vec<Thumb>>,
}

impl Gallery {
    /// Keeps an image, where there is room.
    pub fn keep(&mut self, thumb: Thumb, class: Option<i64>) {
        if let Some(class) = class
            && (self.classes.contains_key(&class) || self.classes.len() < CLASSES)
        {
            let thumbs = self.classes.entry(class).or_default();
            if thumbs.len() < OF_A_CLASS {
                thumbs.push(thumb.clone());
            }
        }
        if self.sheet.len() < SHEET {
            self.sheet.push(thumb);
        }
    }

    /// Adds another part's, in the order of the images.
    pub fn merge(&mut self, other: Gallery) {
        let join = |mine: &mut Vec<Thumb>, theirs: Vec<Thumb>, most: usize| {
            mine.extend(theirs);
            mine.sort_by_key(|t| t.index);
            mine.truncate(most);
        };
        join(&mut self.sheet, other.sheet, SHEET);
        for (class, thumbs) in other.classes {
            join(self.classes.entry(class).or_default(), thumbs, OF_A_CLASS);
        }
    }
}

/// Chooses the images of which thumbnails are made, in a process that sees some of all images: all
/// that the gallery of all images may keep.
#[derive(Debug, Default)]
pub struct Candidates {
    sheet: usize,
    classes: BTreeMap<i64, usize>,
}

impl Candidates {
    /// For images after those that made a gallery.
    pub fn after(gallery: &Gallery) -> Self {
        let classes = gallery.classes.iter().map(|(&class, thumbs)| (class, thumbs.len())).collect();
        Candidates { sheet: gallery.sheet.len(), classes }
    }

    /// Counts an image of this class; true if the gallery may keep it.
    fn takes(&mut self, class: Option<i64>) -> bool {
        let of_class = class.map(|class| self.classes.entry(class).or_default());
        let wanted = self.sheet < SHEET || of_class.as_ref().is_some_and(|n| **n < OF_A_CLASS);
        self.sheet += 1;
        of_class.into_iter().for_each(|n| *n += 1);
        wanted
    }

    /// Thumbnails of a batch, with the classes of their images.
    ///
    /// # Errors
    /// Returns an error if an image cannot be encoded.
    pub fn thumbnails(&mut self, batch: &EvalBatch) -> Result<Vec<(Option<i64>, Thumb)>> {
        let mut all = vec![];
        let Some(samples) = &batch.samples else { return Ok(all) };
        for (i, item) in (0..).zip(&batch.items) {
            if self.takes(item.class) {
                let one = |images: &Tensor| encode(&ImagesU8::new(images.narrow(0, i, 1))?);
                let original = batch.pair.as_ref().map(|p| one(p.originals.to_u8().tensor())).transpose()?;
                let thumb = Thumb {
                    index: item.index,
                    name: item.prompt.clone().unwrap_or_else(|| item.name.clone()),
                    image: one(samples.tensor())?,
                    original,
                };
                all.push((item.class, thumb));
            }
        }
        Ok(all)
    }
}

/// The image of a batch of one as a JPEG in base64, reduced if it is large: a page holds hundreds.
fn encode(image: &ImagesU8) -> Result<String> {
    let nhwc = image.tensor().permute([0, 2, 3, 1]).contiguous().to_device(Device::Cpu);
    let (_, height, width, _) = nhwc.size4()?;
    let (height, width) = (height as u32, width as u32);
    let longest = width.max(height);
    let shown = match RgbImage::from_raw(width, height, Vec::<u8>::try_from(nhwc.view(-1))?) {
        Some(image) if longest > SIDE => {
            let side = |s: u32| (s * SIDE / longest).max(1);
            resize(&image, side(width), side(height), Filter::Bicubic)
        }
        Some(image) => image,
        None => RgbImage::new(1, 1),
    };
    let mut jpeg = vec![];
    shown.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY))?;
    Ok(STANDARD.encode(jpeg))
}
