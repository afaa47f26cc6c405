//! Class agreement: the class of ImageNet-1k that each image is meant to show.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use data::{Class, ClassTable, Target};
use eval::ImageSet;
use rayon::prelude::*;
use serde_json::Value as Json;

use super::texts;
use crate::error::UserError;

/// The set with the class of ImageNet-1k that each image is meant to show: its label, else what
/// `gen sample` left in the PNG.
pub fn label(set: ImageSet) -> Result<ImageSet> {
    let own = |record| match set.target(record) {
        Target::Class(class) => Some(class),
        _ => None,
    };
    let labels = match (0..set.len()).map(own).collect::<Option<Vec<i64>>>() {
        Some(labels) => {
            let number = |class: &Class| -> Result<(i64, i64)> { Ok((class.index, imagenet(class)?)) };
            let numbers = set.classes().iter().map(number).collect::<Result<BTreeMap<i64, i64>>>()?;
            let known =
                |label| numbers.get(label).copied().context("internal error: a label without a class");
            labels.iter().map(known).collect::<Result<_>>()?
        }
        None => embedded(&set)?.ok_or_else(|| none(&set))?,
    };
    Ok(set.with_labels(labels))
}

fn none(set: &ImageSet) -> UserError {
    UserError::new(format!("`{}`: class_agreement needs the class of every image", set.path.display()))
        .hint("looked for: class folders named by WordNet ids or names, labels of the data set (`arr_1` in an .npz, `.cls` in shards, a column `class` in a list), and what `gen sample` leaves in its PNGs")
}

/// A class's number in ImageNet-1k.
pub fn imagenet(class: &Class) -> Result<i64> {
    let unknown = || {
        UserError::new(format!(
            "`{class}` is none of the classes of ImageNet-1k, which class_agreement compares"
        ))
    };
    Ok(ClassTable::imagenet_of(class).ok_or_else(unknown)?.index)
}

/// Classes in what `gen sample` keeps in its PNGs; `None` unless all images have one.
fn embedded(set: &ImageSet) -> Result<Option<Vec<i64>>> {
    if !set.path.is_dir() {
        return Ok(None);
    }
    let class = |record: usize| -> Result<Option<i64>> {
        let texts = texts::of_png(&set.path.join(set.key(record)))?;
        let kept: Option<Json> = texts.get("gen:sample").and_then(|text| serde_json::from_str(text).ok());
        let Some(index) = kept.as_ref().and_then(|json| json["class"].as_i64()) else { return Ok(None) };
        let name = kept.as_ref().and_then(|json| json["class_name"].as_str()).unwrap_or_default();
        imagenet(&Class { index, wnid: String::new(), name: name.to_owned() }).map(Some)
    };
    (0..set.len()).into_par_iter().map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_wordnet_id_by_number_and_by_name() {
        let class = |index, wnid: &str, name: &str| Class { index, wnid: wnid.into(), name: name.into() };
        let found = |c: Class| imagenet(&c).map_err(|e| e.to_string());
        assert_eq!(found(class(3, "n02099601", "my dog")), Ok(207));
        assert_eq!(found(class(207, "", "class 207")), Ok(207));
        assert_eq!(found(class(207, "", "golden retriever")), Ok(207));
        assert_eq!(found(class(0, "", "golden retriever")), Ok(207));
        assert!(found(class(0, "", "tabletop")).unwrap_err().contains("tabletop"));
        assert!(found(class(1000, "", "class 1000")).is_err());
        assert!(found(class(0, "n00000000", "tench")).is_err());
    }
}
