//! Conditions of a run's images.

use std::ops::Range;

use base::rng;
use tch::{Device, Kind, Tensor};

use crate::condition::Condition;

/// Keeps the draws of conditions apart from all other uses of a seed.
const CLASS_STREAM: u64 = 0x636C_6173;

/// Order of the conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// This many images of each condition, one after the other.
    Each(u64),
    /// Uniformly at random, as a function of the seed and the image's index alone (published FIDs
    /// are of random classes, not of equally many of each).
    Random,
    /// Each condition in turn.
    Balanced,
    /// Uniformly at random on libtorch's generator, a batch at a time, as the official script draws
    /// them.
    Torch,
}

/// The images of a run: their indices, and the condition of each.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Conditions to choose from; not empty.
    pub conditions: Vec<Condition>,
    /// Order in which they follow one another.
    pub order: Order,
    /// Indices of the images.
    pub images: Range<u64>,
    /// The run's seed.
    pub seed: u64,
}

impl Targets {
    /// Image `index` alone, of this condition.
    pub fn one(index: u64, condition: Condition, seed: u64) -> Self {
        Targets { conditions: vec![condition], order: Order::Each(1), images: index..index + 1, seed }
    }

    /// Number of images.
    pub fn len(&self) -> u64 {
        self.images.end - self.images.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Runs of consecutive indices, at most `size` long, from image `from` on.
    pub fn batches(&self, from: u64, size: u64) -> impl Iterator<Item = Range<u64>> + use<> {
        let end = self.images.end;
        (from..end).step_by(size.max(1) as usize).map(move |a| a..(a + size).min(end))
    }

    /// The conditions of a batch. With [`Order::Torch`] this draws from libtorch's generator.
    pub fn conditions_of(&self, batch: &Range<u64>, device: Device) -> Vec<&Condition> {
        let n = self.conditions.len() as u64;
        if self.order == Order::Torch {
            let count = (batch.end - batch.start) as i64;
            let drawn = Tensor::randint(n as i64, [count], (Kind::Int64, device)).to_device(Device::Cpu);
            return (0..count).map(|i| &self.conditions[drawn.int64_value(&[i]) as usize]).collect();
        }
        let position = |index: u64| match self.order {
            Order::Each(num) => (index - self.images.start) / num,
            Order::Balanced => index % n,
            _ => rng::below(self.seed, &[CLASS_STREAM, index], n),
        };
        batch.clone().map(|index| &self.conditions[position(index) as usize]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::Class;

    fn targets(order: Order, images: Range<u64>) -> Targets {
        let class = |index| Condition::Class(Class { index, wnid: String::new(), name: format!("c{index}") });
        Targets { conditions: vec![class(3), class(5), class(9)], order, images, seed: 1 }
    }

    fn indices(targets: &Targets, batch: usize) -> Vec<i64> {
        let of = |r: Range<u64>| -> Vec<i64> {
            targets.conditions_of(&r, Device::Cpu).iter().map(|c| c.class().unwrap().index).collect()
        };
        targets.batches(targets.images.start, batch as u64).flat_map(of).collect()
    }

    #[test]
    fn classes_follow_their_order_at_any_batch_size() {
        for batch in [1, 4, 7] {
            assert_eq!(indices(&targets(Order::Each(2), 0..6), batch), [3, 3, 5, 5, 9, 9]);
            assert_eq!(indices(&targets(Order::Balanced, 0..5), batch), [3, 5, 9, 3, 5]);
            assert_eq!(
                indices(&targets(Order::Random, 0..50), batch),
                indices(&targets(Order::Random, 0..50), 50)
            );
        }
    }

    #[test]
    fn random_classes_are_uniform() {
        let drawn = indices(&targets(Order::Random, 0..3000), 100);
        for class in [3, 5, 9] {
            let share = drawn.iter().filter(|&&c| c == class).count();
            assert!((900..1100).contains(&share), "class {class}: {share} of 3000");
        }
    }
}
