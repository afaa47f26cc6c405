//! Class agreement: which class of ImageNet-1k each image is meant to show, and what is told of each class.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use choices::Metric;
use cli::eval::RunArgs;
use data::{Class, ClassTable, Target};
use eval::{AgreementScores, ClassAgreement};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value as Json;

use super::images::ImageSet;
use super::metrics::Plan;
use super::source::Source;
use super::tally::Tally;
use super::texts;
use super::titles::AGREEMENT;
use super::values::{HIGHER, Setting, Value};
use crate::failure::Failure;

/// The set with the class of ImageNet-1k that each image is meant to show: its label, else what `gen sample` left in
/// the PNG.
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

fn none(set: &ImageSet) -> Failure {
    Failure::new(format!("`{}`: class_agreement needs the class of every image", set.path.display()))
        .hint("looked for: class folders named by WordNet ids or names, labels of the data set (`arr_1` in an .npz, `.cls` in shards, a column `class` in a list), and what `gen sample` leaves in its PNGs")
}

/// A class's number in ImageNet-1k.
fn imagenet(class: &Class) -> Result<i64> {
    let unknown = || {
        Failure::new(format!(
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

/// The classes among which images are judged beside all of them: those that the images have, or the ones of `--among`.
/// Empty where class agreement is not asked for.
pub fn classes(args: &RunArgs, plan: &Plan, source: &Source) -> Result<Vec<i64>> {
    if !plan.has(Metric::ClassAgreement) {
        return match args.among {
            Some(_) => Err(Failure::new("`--among` belongs to `--metrics class_agreement`").into()),
            None => Ok(vec![]),
        };
    }
    let shown = shown(source)?;
    let Some(list) = &args.among else { return Ok(shown.into_iter().collect()) };
    let chosen: Vec<i64> = ClassTable::imagenet().resolve_list(list)?.iter().map(|c| c.index).collect();
    match shown.iter().find(|class| !chosen.contains(class)) {
        Some(&class) => {
            let message = format!("there are images of class {}, which `--among` does not name", name(class));
            Err(Failure::new(message).into())
        }
        None => Ok(chosen),
    }
}

/// The classes that the images of a source have.
fn shown(source: &Source) -> Result<BTreeSet<i64>> {
    match source {
        Source::Files(set) | Source::Reconstruct(_, set) => Ok(set.labels().iter().copied().collect()),
        Source::Generate(generator) => generator.classes().map(own_number).collect(),
        Source::Predict(_) => Ok(BTreeSet::new()),
    }
}

/// A class of a model, which must have its number in ImageNet-1k.
fn own_number(class: &Class) -> Result<i64> {
    let number = imagenet(class)?;
    if number == class.index {
        return Ok(number);
    }
    let message = format!("the model's class `{class}` has the number {number} in ImageNet-1k");
    Err(Failure::new(message).hint("score the images of `gen sample` in class folders").into())
}

/// Number and name.
pub fn name(class: i64) -> String {
    ClassTable::imagenet()
        .by_index(class)
        .map_or_else(|| class.to_string(), |c| format!("{class} {}", c.name))
}

/// The scores of what is judged, and of the reference's images, the ceiling.
pub fn values(tally: &Tally, setting: &Setting) -> Vec<Value> {
    let sides =
        [(&tally.agreement, "", ""), (&tally.reference_agreement, "reference_", ", of the reference")];
    let of_side = |(agreement, prefix, whose): (&Option<ClassAgreement>, &str, &str)| {
        let agreement = agreement.as_ref()?;
        Some(of_one(agreement, &agreement.scores()?, setting, prefix, whose))
    };
    sides.into_iter().filter_map(of_side).flatten().collect()
}

fn of_one(
    agreement: &ClassAgreement,
    scores: &AgreementScores,
    setting: &Setting,
    prefix: &str,
    whose: &str,
) -> Vec<Value> {
    let n = agreement.among().len();
    let value = |suffix: &str, value: f64, what: &str| {
        let name = format!("{prefix}{AGREEMENT}{suffix}");
        let value = setting.value(&name, value, HIGHER, &format!("{what}{whose}")).alone();
        let value = Value { samples: scores.images, ..value };
        match agreement.outside() {
            0 => value,
            outside => value.noted(format!("{outside} images of other classes are passed over")),
        }
    };
    vec![
        value("", scores.top1, "share of images whose class is the first guess of all"),
        value("_top5", scores.top5, "share of images whose class is among the first five guesses of all"),
        value("_among", scores.among_top1, &format!("share of images, first guess among {n} classes")),
        value("_among_top5", scores.among_top5, &format!("share of images, first five among {n} classes")),
        value(
            "_half",
            scores.half_right as f64,
            &format!("of {} classes those with at least half right among {n}", scores.classes),
        ),
    ]
}

/// What is told of one class.
#[derive(Debug, Clone, Serialize)]
pub struct ClassRow {
    /// Its number in ImageNet-1k.
    pub class: i64,
    /// Its name.
    pub name: String,
    /// Images of it.
    pub images: u64,
    /// Named right: first guess, first five guesses of all classes; the same among the chosen classes.
    pub top1: u64,
    /// See `top1`.
    pub top5: u64,
    /// See `top1`.
    pub among_top1: u64,
    /// See `top1`.
    pub among_top5: u64,
    /// The most frequent first guess of all classes.
    pub usual_guess: String,
    /// How many images it is made of.
    pub usual_guess_images: u64,
    /// The reference's images of this class, and how many of them are named right among the chosen classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<[u64; 2]>,
}

impl ClassRow {
    /// Share named right among the chosen classes, then the share among the first five.
    fn merit(&self) -> [f64; 2] {
        [self.among_top1, self.among_top5].map(|n| n as f64 / self.images.max(1) as f64)
    }

    /// One line.
    pub fn summary(&self) -> String {
        let ClassRow { images, among_top1, among_top5, usual_guess, usual_guess_images, .. } = self;
        let reference =
            self.reference.map(|[n, right]| format!("; of the reference {right} of {n}")).unwrap_or_default();
        format!(
            "{among_top1} of {images} named right, {among_top5} in the first five{reference}; most often taken for \
             {usual_guess} ({usual_guess_images})"
        )
    }
}

/// All classes, the best first.
pub fn by_class(tally: &Tally) -> Vec<ClassRow> {
    let Some(agreement) = &tally.agreement else { return vec![] };
    let reference = tally.reference_agreement.as_ref().map(ClassAgreement::by_class);
    let row = |(&class, counts): (&i64, &eval::ClassCounts)| {
        let (guess, usual_guess_images) = counts.usual_guess().unwrap_or((class, 0));
        ClassRow {
            class,
            name: ClassTable::imagenet().by_index(class).map(|c| c.name.clone()).unwrap_or_default(),
            images: counts.images,
            top1: counts.top1,
            top5: counts.top5,
            among_top1: counts.among_top1,
            among_top5: counts.among_top5,
            usual_guess: name(guess),
            usual_guess_images,
            reference: reference.and_then(|r| r.get(&class)).map(|c| [c.images, c.among_top1]),
        }
    };
    let mut rows: Vec<ClassRow> = agreement.by_class().iter().map(row).collect();
    rows.sort_by(|a, b| b.merit().partial_cmp(&a.merit()).unwrap_or(std::cmp::Ordering::Equal));
    rows
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
