//! A run's first weights where they are another model's, and parameters that stay as they are.

use std::path::Path;

use base::config::to_yaml;
use base::{Progress, Vars};
use serde::Serialize;

use crate::files::write_atomically;
pub(crate) use crate::task::Adoption;
use crate::task::{Recipe, Task};
use crate::{Error, Result};

/// What became of a checkpoint, as `initial-weights.yaml` in the run's directory holds it.
#[derive(Debug, Serialize)]
pub(crate) struct Account {
    file: String,
    section: Option<String>,
    fingerprint: String,
    /// Variables with the file's values.
    taken: Vec<String>,
    /// Variables that were drawn.
    new: Vec<String>,
    /// Tensors of the file that the model has no use for.
    left_out: Vec<String>,
}

/// Gives the model the weights that its recipe names, if it names some, and says so.
pub(crate) fn adopt(task: &impl Task, progress: &mut dyn Progress) -> Result<Option<Account>> {
    let Some(from) = task.recipe().common().init_from else { return Ok(None) };
    let Adoption { map, replaceable, known } = task.adoption();
    let (report, source) = weights::adopt(task.module(0).vars, from, map, replaceable, known)?;
    let names = |dropped: Vec<weights::Dropped>| dropped.into_iter().map(|d| d.name).collect();
    let account = Account {
        file: std::path::absolute(&report.origin.path)
            .map_err(Error::file("find", &report.origin.path))?
            .display()
            .to_string(),
        section: report.origin.section.clone(),
        fingerprint: weights::fingerprint_source(source.as_ref())?,
        taken: report.applied,
        new: names(report.kept),
        left_out: names(report.dropped),
    };
    let new = if account.new.is_empty() { "none".into() } else { account.new.join(", ") };
    progress.message(&format!(
        "first weights: {} tensors of {}; new: {new}",
        account.taken.len(),
        report.origin
    ));
    Ok(Some(account))
}

impl Account {
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_atomically(&dir.join("initial-weights.yaml"), to_yaml(self)?.as_bytes())
    }
}

/// Lets every parameter record gradients but those that a pattern means.
///
/// # Errors
/// A pattern that means no parameter, or nothing left to train.
pub(crate) fn freeze(vars: &Vars, patterns: &[String]) -> Result<()> {
    vars.set_requires_grad(true);
    let parameters = vars.parameters();
    for pattern in patterns {
        let mut meant = parameters.iter().filter(|v| weights::matches(pattern, &v.name)).peekable();
        if meant.peek().is_none() {
            return Err(Error::NoSuchParameter {
                pattern: pattern.clone(),
                similar: similar(pattern, parameters.iter().map(|v| v.name.as_str())),
            });
        }
        for v in meant {
            let _ = v.tensor.set_requires_grad(false);
        }
    }
    if parameters.iter().all(|v| !v.tensor.requires_grad()) {
        return Err(Error::Recipe("freeze: nothing is left to train".into()));
    }
    Ok(())
}

/// Beginnings of names, as long as the pattern, that resemble it.
fn similar<'a>(pattern: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let parts = pattern.split('.').count();
    let mut heads: Vec<String> =
        names.map(|n| n.split('.').take(parts).collect::<Vec<_>>().join(".")).collect();
    heads.dedup();
    let near = base::hint::nearest(pattern, heads.iter().map(String::as_str), 3);
    near.into_iter().map(str::to_owned).collect()
}
