//! Class agreement: whether a frozen classifier sees in an image the class that the image is meant
//! to show.
//!
//! B images, K classes of the classifier

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::math::features::rows;
use crate::{Error, Result};

/// A classifier's answers for the images of one class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCounts {
    /// Images.
    pub images: u64,
    /// Images whose class is the first guess among all classes.
    pub top1: u64,
    /// Images whose class is among the first five guesses.
    pub top5: u64,
    /// Images whose class is the first guess among the chosen classes.
    pub among_top1: u64,
    /// Images whose class is among the first five guesses among the chosen classes.
    pub among_top5: u64,
    /// First guess among all classes → how many images.
    pub guesses: BTreeMap<i64, u64>,
}

impl ClassCounts {
    /// At least half of the images are named right among the chosen classes.
    pub fn half_right(&self) -> bool {
        2 * self.among_top1 >= self.images
    }

    /// The most frequent first guess and its images; of several the one with the smallest number.
    pub fn usual_guess(&self) -> Option<(i64, u64)> {
        let best = self.guesses.iter().max_by_key(|&(class, n)| (n, std::cmp::Reverse(class)));
        best.map(|(&class, &n)| (class, n))
    }

    fn add(&mut self, other: &ClassCounts) {
        self.images += other.images;
        self.top1 += other.top1;
        self.top5 += other.top5;
        self.among_top1 += other.among_top1;
        self.among_top5 += other.among_top5;
        for (guess, n) in &other.guesses {
            *self.guesses.entry(*guess).or_default() += n;
        }
    }
}

/// Counts over images, by class. Parts of one set merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassAgreement {
    among: Vec<i64>,
    by_class: BTreeMap<i64, ClassCounts>,
    outside: u64,
}

/// Shares of images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AgreementScores {
    /// First guess among all of the classifier's classes.
    pub top1: f64,
    /// First five guesses among all of them.
    pub top5: f64,
    /// First guess among the chosen classes.
    pub among_top1: f64,
    /// First five guesses among the chosen classes.
    pub among_top5: f64,
    /// Classes with at least half of their images named right among the chosen classes.
    pub half_right: u64,
    /// Classes with images.
    pub classes: u64,
    /// Images counted.
    pub images: u64,
}

impl ClassAgreement {
    /// Counts before the first image; `among` are the classes to which the narrower question is
    /// limited.
    pub fn new(among: impl IntoIterator<Item = i64>) -> Self {
        let mut among: Vec<i64> = among.into_iter().collect();
        among.sort_unstable();
        among.dedup();
        ClassAgreement { among, by_class: BTreeMap::new(), outside: 0 }
    }

    /// The chosen classes, ascending.
    pub fn among(&self) -> &[i64] {
        &self.among
    }

    /// Counts by class.
    pub fn by_class(&self) -> &BTreeMap<i64, ClassCounts> {
        &self.by_class
    }

    /// Images that were skipped because their class is not one of the chosen ones.
    pub fn outside(&self) -> u64 {
        self.outside
    }

    /// Adds a batch: logits (B, K), and the classes that the images are meant to show. Images of
    /// other classes than the chosen ones are passed over. Of equal logits the class with the
    /// smaller number goes first.
    ///
    /// # Errors
    /// Returns an error if the logits are not finite, their number is not the labels', or a chosen
    /// class is not one of the K.
    pub fn update(&mut self, logits: &Tensor, labels: &[i64]) -> Result<()> {
        let logits = rows(logits)?;
        let (n, width) = logits.size2()?;
        if n != labels.len() as i64 {
            return Err(Error::Count { what: "classes of images", expected: n, found: labels.len() as i64 });
        }
        if let Some(&class) = self.among.iter().find(|class| !(0..width).contains(*class)) {
            return Err(Error::NoSuchClass { class, classes: width });
        }
        let values = Vec::<f64>::try_from(logits.contiguous().view(-1))?;
        for (row, &label) in values.chunks_exact(width as usize).zip(labels) {
            if self.among.binary_search(&label).is_err() {
                self.outside += 1;
                continue;
            }
            let mine = row[label as usize];
            let before = |class: i64| {
                let other = row[class as usize];
                other > mine || (other == mine && class < label)
            };
            let rank = (0..width).filter(|&class| before(class)).count();
            let rank_among = self.among.iter().filter(|&&class| before(class)).count();
            let counts = self.by_class.entry(label).or_default();
            counts.images += 1;
            counts.top1 += u64::from(rank < 1);
            counts.top5 += u64::from(rank < 5);
            counts.among_top1 += u64::from(rank_among < 1);
            counts.among_top5 += u64::from(rank_among < 5);
            *counts.guesses.entry(first_guess(row)).or_default() += 1;
        }
        Ok(())
    }

    /// Adds the counts of another part of the set.
    pub fn merge(&mut self, other: &ClassAgreement) {
        for (class, counts) in &other.by_class {
            self.by_class.entry(*class).or_default().add(counts);
        }
        self.outside += other.outside;
    }

    /// Shares over all images; `None` before the first.
    pub fn scores(&self) -> Option<AgreementScores> {
        let mut all = ClassCounts::default();
        self.by_class.values().for_each(|counts| all.add(counts));
        let share = |n: u64| n as f64 / all.images as f64;
        (all.images > 0).then(|| AgreementScores {
            top1: share(all.top1),
            top5: share(all.top5),
            among_top1: share(all.among_top1),
            among_top5: share(all.among_top5),
            half_right: self.by_class.values().filter(|counts| counts.half_right()).count() as u64,
            classes: self.by_class.len() as u64,
            images: all.images,
        })
    }
}

fn first_guess(row: &[f64]) -> i64 {
    let mut best = 0;
    for (class, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = class;
        }
    }
    best as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of eight classes that fall in this order.
    fn guesses(order: [i64; 8]) -> Vec<f32> {
        let mut row = vec![0.0; 8];
        order.iter().zip(0..).for_each(|(&class, place)| row[class as usize] = -(place as f32));
        row
    }

    fn batch(rows: &[[i64; 8]]) -> Tensor {
        let values: Vec<f32> = rows.iter().flat_map(|&order| guesses(order)).collect();
        Tensor::from_slice(&values).view([-1, 8])
    }

    #[test]
    fn guesses_are_counted_over_all_and_among_the_chosen() {
        let mut whole = ClassAgreement::new([6, 2, 7, 2]);
        assert!(whole.scores().is_none());
        let rows = [
            [2, 0, 1, 3, 4, 5, 6, 7], // right
            [0, 1, 3, 4, 5, 2, 6, 7], // sixth over all, first among 2, 6, 7
            [0, 1, 2, 3, 4, 5, 6, 7], // meant as 6: seventh over all, second among the chosen
            [0, 1, 2, 3, 4, 5, 6, 7], // of a class that was not chosen
        ];
        let labels = [2, 2, 6, 5];
        whole.update(&batch(&rows), &labels).unwrap();
        let s = whole.scores().unwrap();
        let third = 1.0 / 3.0;
        assert_eq!((s.images, s.classes, s.half_right, whole.outside()), (3, 2, 1, 1));
        assert_eq!([s.top1, s.top5, s.among_top1, s.among_top5], [third, third, 2.0 / 3.0, 1.0]);
        assert_eq!(whole.by_class()[&2].usual_guess(), Some((0, 1)), "of equally many the first");
        assert_eq!(whole.by_class()[&6].guesses, BTreeMap::from([(0, 1)]));

        let (mut a, mut b) = (ClassAgreement::new([2, 6, 7]), ClassAgreement::new([2, 6, 7]));
        a.update(&batch(&rows[..1]), &labels[..1]).unwrap();
        b.update(&batch(&rows[1..]), &labels[1..]).unwrap();
        a.merge(&b);
        assert_eq!(a, whole);
    }

    #[test]
    fn ties_go_by_number_and_what_is_no_logit_is_refused() {
        let mut ties = ClassAgreement::new([0, 1]);
        let flat = Tensor::zeros([2, 8], (tch::Kind::Float, tch::Device::Cpu));
        ties.update(&flat, &[0, 1]).unwrap();
        assert_eq!((ties.by_class()[&0].top1, ties.by_class()[&1].top1), (1, 0));
        assert!(ties.update(&flat, &[0]).is_err());
        assert!(ties.update(&(&flat / 0.0), &[0, 1]).unwrap_err().to_string().contains("not finite"));
        let e = ClassAgreement::new([8]).update(&flat, &[8, 8]).unwrap_err().to_string();
        assert!(e.contains("class 8"), "{e}");
    }
}
