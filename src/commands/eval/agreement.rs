//! Class agreement: the classes among which images are judged.

use std::collections::BTreeSet;

use anyhow::Result;
use cli::eval::RunArgs;
use data::{Class, ClassTable};
use eval::Plan;
use settings::Metric;

use super::labels::imagenet;
use super::source::Source;
use crate::error::UserError;

/// The classes among which images are judged beside all of them: those that the images have, or the
/// ones of `--among`. Empty where class agreement is not asked for.
pub fn classes(args: &RunArgs, plan: &Plan, source: &Source) -> Result<Vec<i64>> {
    if !plan.has(Metric::ClassAgreement) {
        return match args.among {
            Some(_) => Err(UserError::new("`--among` belongs to `--metrics class_agreement`").into()),
            None => Ok(vec![]),
        };
    }
    let shown = shown(source)?;
    let Some(list) = &args.among else { return Ok(shown.into_iter().collect()) };
    let chosen: Vec<i64> = ClassTable::imagenet().resolve_list(list)?.iter().map(|c| c.index).collect();
    match shown.iter().find(|class| !chosen.contains(class)) {
        Some(&class) => {
            let message = format!(
                "there are images of class {}, which `--among` does not name",
                eval::class_label(class)
            );
            Err(UserError::new(message).into())
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
    Err(UserError::new(message).hint("score the images of `gen sample` in class folders").into())
}
