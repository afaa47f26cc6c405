//! Counts of a run beside its metrics: progress, images, classes, skipped inputs and thumbnails.

use std::collections::BTreeMap;

use base::Skipped;
use data::Stored;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::gallery::Gallery;
use crate::image_set::Read;

/// One side of the comparison.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SideStats {
    /// Number of images scored.
    pub images: u64,
    /// Digest of their names and pixels.
    pub digest: Digest,
    /// Images whose files hold something else than 8-bit RGB, by what they hold.
    pub converted: BTreeMap<String, u64>,
}

impl SideStats {
    /// Counts images that were read.
    pub fn add(&mut self, read: &[Read]) {
        for image in read {
            self.images += 1;
            self.digest.add(image.digest);
            let what = match image.stored {
                Stored::Rgb => continue,
                Stored::Grey => "grey, repeated on three channels",
                Stored::Transparent => "transparency, dropped",
                Stored::Deep => "more than 8 bits, rounded to 8",
                Stored::Cmyk => "CMYK, converted to RGB",
            };
            *self.converted.entry(what.to_owned()).or_default() += 1;
        }
    }

    /// Adds other images of the side.
    pub fn merge(&mut self, other: &SideStats) {
        self.images += other.images;
        self.digest.add(other.digest);
        for (what, n) in &other.converted {
            *self.converted.entry(what.clone()).or_default() += n;
        }
    }
}

/// Counts of a run: plain numbers and texts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunTotals {
    /// Images done in each phase, skipped ones included.
    pub done: BTreeMap<String, u64>,
    /// Images judged.
    pub samples: SideStats,
    /// Images compared with.
    pub reference: SideStats,
    /// Images judged, by class.
    pub classes: BTreeMap<i64, u64>,
    /// Images that could not be read.
    pub skipped: Vec<Skipped>,
    /// Thumbnails for the report.
    pub gallery: Gallery,
}

impl RunTotals {
    /// Adds another part's.
    pub fn merge(&mut self, other: RunTotals) {
        let RunTotals { done, samples, reference, classes, skipped, gallery } = other;
        for (phase, n) in done {
            *self.done.entry(phase).or_default() += n;
        }
        self.samples.merge(&samples);
        self.reference.merge(&reference);
        for (class, n) in classes {
            *self.classes.entry(class).or_default() += n;
        }
        self.skipped.extend(skipped);
        self.gallery.merge(gallery);
    }
}
