//! Class agreement of reconstructions: the share that a classifier classifies as labelled.

use std::collections::BTreeMap;

use backbones::{EfficientNetExtractor, FeatureExtractor, InputPath, efficientnet_weights};
use base::ImagesU8;
use data::{Class, ClassTable};
use tch::{Device, Kind, Tensor};

use super::recipe::Classifier;
use crate::{Error, Result};

/// An ImageNet-1k classifier of images of some of its classes.
#[derive(Debug)]
pub(super) struct Judge {
    network: EfficientNetExtractor,
    /// ImageNet-1k indices of the data's classes, in the data's order.
    classes: Vec<i64>,
    /// Positions in `classes` by the data's labels.
    positions: BTreeMap<i64, i64>,
}

impl Judge {
    /// Opens the classifier for held-out images of these classes.
    ///
    /// # Errors
    /// Returns an error if there are no classes, one of them is not in ImageNet-1k, or the weights
    /// cannot be read.
    pub fn new(recipe: &Classifier, classes: &[Class], device: Device) -> Result<Self> {
        let number = |class: &Class| {
            let found = ClassTable::imagenet_of(class).map(|c| c.index);
            found.ok_or_else(|| {
                refused(format!("the held-out images' class `{class}` is none of ImageNet-1k's"))
            })
        };
        if classes.is_empty() {
            return Err(refused("the held-out images have no classes".into()));
        }
        let numbers = classes.iter().map(number).collect::<Result<Vec<i64>>>()?;
        let weights = efficientnet_weights(recipe.weights.as_ref(), recipe.size)?;
        let network = EfficientNetExtractor::open(recipe.size, &weights, InputPath::Pil, device)?;
        let positions = classes.iter().zip(0..).map(|(class, i)| (class.index, i)).collect();
        Ok(Judge { network, classes: numbers, positions })
    }

    /// Number of images classified as labelled, among the classes.
    pub fn count_correct(&self, images: &ImagesU8, labels: &[i64]) -> Result<f64> {
        let logits = self.network.extract(images)?.logits.expect("a classifier's logits");
        let among = logits.index_select(1, &Tensor::from_slice(&self.classes));
        let wanted: Option<Vec<i64>> =
            labels.iter().map(|label| self.positions.get(label).copied()).collect();
        let wanted = wanted.ok_or_else(|| refused("a held-out image has no class".into()))?;
        let named = among.argmax(1, false).eq_tensor(&Tensor::from_slice(&wanted));
        Ok(named.to_kind(Kind::Double).sum(Kind::Double).double_value(&[]))
    }
}

fn refused(why: String) -> Error {
    Error::Recipe(format!("classifier: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use backbones::{EfficientNetSize, WeightSource};

    #[test]
    fn images_are_named_among_the_classes_of_the_data() {
        let class = |index, wnid: &str| Class { index, wnid: wnid.into(), name: wnid.into() };
        let recipe =
            Classifier { size: EfficientNetSize::Lite0, weights: Some(WeightSource::Random { seed: 3 }) };
        let (retriever, tench, whale) = (class(7, "n02099601"), class(0, "n01440764"), class(9, "n02066245"));
        let judge = Judge::new(&recipe, &[tench, retriever.clone(), whale], Device::Cpu).unwrap();
        assert_eq!(judge.classes, [0, 207, 147]);
        tch::manual_seed(1);
        let random = (Tensor::rand([3, 3, 32, 32], (Kind::Float, Device::Cpu)) * 255.0).to_kind(Kind::Uint8);
        let images = ImagesU8::new(random).unwrap();
        let logits = judge.network.extract(&images).unwrap().logits.unwrap();
        let best = |row: i64| {
            let value = |n: i64| logits.double_value(&[row, n]);
            [(0, 0i64), (7, 207), (9, 147)]
                .into_iter()
                .max_by(|a, b| value(a.1).total_cmp(&value(b.1)))
                .unwrap()
                .0
        };
        let labels: Vec<i64> = (0..3).map(best).collect();
        assert_eq!(judge.count_correct(&images, &labels).unwrap(), 3.0);
        let wrong = if labels[0] == 0 { 7 } else { 0 };
        assert_eq!(judge.count_correct(&images, &[wrong, labels[1], labels[2]]).unwrap(), 2.0);
        assert!(judge.count_correct(&images, &[5, 0, 0]).unwrap_err().to_string().contains("has no class"));

        let says = |classes: &[Class]| Judge::new(&recipe, classes, Device::Cpu).unwrap_err().to_string();
        let strange = says(&[retriever, class(1, "a cat of mine")]);
        assert!(strange.contains("`1 a cat of mine a cat of mine` is none"), "{strange}");
        assert!(says(&[]).contains("no classes"));
    }
}
