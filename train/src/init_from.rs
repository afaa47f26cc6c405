//! Initial weights from another model, and frozen parameters.

use std::path::Path;

use base::config::to_yaml;
use base::{Progress, Vars};
use serde::Serialize;

use crate::files::write_atomically;
use crate::recipe::CommonKeys as _;
use crate::task::{InitPolicy, Task};
use crate::{Error, Result};

/// Outcome of loading a checkpoint, as `initial-weights.yaml` in the run's directory holds it.
#[derive(Debug, Serialize)]
pub(crate) struct InitReport {
    file: String,
    section: Option<String>,
    fingerprint: String,
    /// Variables with the file's values.
    #[serde(rename = "taken")]
    loaded: Vec<String>,
    /// Variables that were initialised at random.
    new: Vec<String>,
    /// Tensors of the file that the model does not use.
    #[serde(rename = "left_out")]
    unused: Vec<String>,
}

/// Loads the weights of the recipe's `init_from` into the model and reports them; `None` without
/// that key.
///
/// # Errors
/// Returns an error if the file cannot be read or does not fit the model.
pub(crate) fn load_pretrained(task: &impl Task, progress: &mut dyn Progress) -> Result<Option<InitReport>> {
    let Some(from) = task.recipe().common().init_from else { return Ok(None) };
    let InitPolicy { map, reinit_allowed, known } = task.init_policy();
    let (report, source) = weights::adopt(task.module(0).vars, from, map, reinit_allowed, known)?;
    let names = |dropped: Vec<weights::Dropped>| dropped.into_iter().map(|d| d.name).collect();
    let init = InitReport {
        file: std::path::absolute(&report.origin.path)
            .map_err(Error::file("find", &report.origin.path))?
            .display()
            .to_string(),
        section: report.origin.section.clone(),
        fingerprint: weights::fingerprint_source(source.as_ref())?,
        loaded: report.applied,
        new: names(report.kept),
        unused: names(report.dropped),
    };
    let new = if init.new.is_empty() { "none".into() } else { init.new.join(", ") };
    progress.message(&format!(
        "first weights: {} tensors of {}; new: {new}",
        init.loaded.len(),
        report.origin
    ));
    Ok(Some(init))
}

impl InitReport {
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_atomically(&dir.join("initial-weights.yaml"), to_yaml(self)?.as_bytes())
    }
}

/// Lets every parameter record gradients except those that a pattern matches.
///
/// # Errors
/// Returns an error if a pattern matches no parameter, or nothing is left to train.
pub(crate) fn freeze(vars: &Vars, patterns: &[String]) -> Result<()> {
    vars.set_requires_grad(true);
    let parameters = vars.parameters();
    for pattern in patterns {
        let mut matching = parameters.iter().filter(|v| weights::matches(pattern, &v.name)).peekable();
        if matching.peek().is_none() {
            return Err(Error::NoSuchParameter {
                pattern: pattern.clone(),
                similar: similar(pattern, parameters.iter().map(|v| v.name.as_str())),
            });
        }
        for v in matching {
            let _ = v.tensor.set_requires_grad(false);
        }
    }
    if parameters.iter().all(|v| !v.tensor.requires_grad()) {
        return Err(Error::Recipe("freeze: nothing is left to train".into()));
    }
    Ok(())
}

/// Prefixes of names, with as many parts as the pattern, that resemble it.
fn similar<'a>(pattern: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let parts = pattern.split('.').count();
    let mut heads: Vec<String> =
        names.map(|n| n.split('.').take(parts).collect::<Vec<_>>().join(".")).collect();
    heads.dedup();
    let near = base::hint::nearest(pattern, heads.iter().map(String::as_str), 3);
    near.into_iter().map(str::to_owned).collect()
}
