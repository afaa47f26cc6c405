//! Figures of one class for the report.

use data::ClassTable;
use serde::Serialize;

use crate::math::class_agreement::ClassCounts;

/// A classifier's answers for the images of one class.
#[derive(Debug, Clone, Serialize)]
pub struct ClassRow {
    /// Number of the class in ImageNet-1k.
    pub class: i64,
    /// Name of the class.
    pub name: String,
    /// Images of the class.
    pub images: u64,
    /// Images named right by the first guess of all classes.
    pub top1: u64,
    /// Images named right by the first five guesses of all classes.
    pub top5: u64,
    /// Images named right by the first guess among the chosen classes.
    pub among_top1: u64,
    /// Images named right by the first five guesses among the chosen classes.
    pub among_top5: u64,
    /// The most frequent first guess of all classes.
    pub usual_guess: String,
    /// Images with that guess.
    pub usual_guess_images: u64,
    /// Images of the reference, and how many of them are named right among the chosen classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<[u64; 2]>,
}

impl ClassRow {
    /// A row from the counts of both sides.
    pub fn new(class: i64, counts: &ClassCounts, reference: Option<&ClassCounts>) -> Self {
        let (guess, usual_guess_images) = counts.usual_guess().unwrap_or((class, 0));
        ClassRow {
            class,
            name: ClassTable::imagenet().by_index(class).map(|c| c.name.clone()).unwrap_or_default(),
            images: counts.images,
            top1: counts.top1,
            top5: counts.top5,
            among_top1: counts.among_top1,
            among_top5: counts.among_top5,
            usual_guess: class_label(guess),
            usual_guess_images,
            reference: reference.map(|c| [c.images, c.among_top1]),
        }
    }

    /// Share named right among the chosen classes, then the share among the first five.
    pub fn merit(&self) -> [f64; 2] {
        [self.among_top1, self.among_top5].map(|n| n as f64 / self.images.max(1) as f64)
    }

    /// The row as one line.
    pub fn summary(&self) -> String {
        let ClassRow { images, among_top1, among_top5, usual_guess, usual_guess_images, .. } = self;
        let reference =
            self.reference.map(|[n, right]| format!("; of the reference {right} of {n}")).unwrap_or_default();
        format!(
            "{among_top1} of {images} named right, {among_top5} in the first five{reference}; most often taken \
             for {usual_guess} ({usual_guess_images})"
        )
    }
}

/// Number and name of a class of ImageNet-1k.
pub fn class_label(class: i64) -> String {
    let known = ClassTable::imagenet().by_index(class);
    known.map_or_else(|| class.to_string(), |c| format!("{class} {}", c.name))
}
