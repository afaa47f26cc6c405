//! A few images for the report, small enough to be kept in memory.

use std::collections::BTreeMap;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data::resize::{Filter, resize};
use generate::Picture;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use serde::{Deserialize, Serialize};

/// The longest side that is shown.
const SIDE: u32 = 128;
/// Of the JPEGs.
const QUALITY: u8 = 92;
/// Images of the sheet.
const SHEET: usize = 64;
/// Images of a class, and classes.
const OF_A_CLASS: usize = 6;
const CLASSES: usize = 1000;

/// An image as it stands in the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thumb {
    /// Its number.
    pub index: u64,
    /// Its name.
    pub name: String,
    /// As a JPEG in base64.
    pub image: String,
    /// Its original likewise.
    pub original: Option<String>,
}

/// The first images, and the first of each class.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Gallery {
    /// Of the whole set.
    pub sheet: Vec<Thumb>,
    /// By class.
    pub classes: BTreeMap<i64, Vec<Thumb>>,
}

impl Gallery {
    /// Whether an image of this class would be kept.
    pub fn wants(&self, class: Option<i64>) -> bool {
        let room = |class: &i64| match self.classes.get(class) {
            Some(thumbs) => thumbs.len() < OF_A_CLASS,
            None => self.classes.len() < CLASSES,
        };
        self.sheet.len() < SHEET || class.as_ref().is_some_and(room)
    }

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

    /// Takes in another part's, in the order of the images.
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

/// A picture as a JPEG in base64, made smaller where it is large: a page holds hundreds.
pub fn encode(picture: Picture) -> Result<String> {
    let (width, height) = (picture.width as u32, picture.height as u32);
    let longest = width.max(height);
    let shown = match RgbImage::from_raw(width, height, picture.rgb) {
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
