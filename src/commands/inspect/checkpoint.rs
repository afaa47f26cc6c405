//! A checkpoint's sections, tensors and other values.

use std::collections::BTreeMap;
use std::path::Path;

use cli::inspect::InspectArgs;
use serde::Serialize;
use serde_json::{Map, Value as Json};
use weights::{Checkpoint, TensorSource, Want, fingerprint_source};

use super::format::{Tensor, bytes, kind_name, thousands};
use super::released::looks_like;

#[derive(Debug, Serialize)]
pub(super) struct CheckpointReport {
    path: String,
    format: String,
    /// The section from which a model would load its tensors, or the requested one; none for the
    /// top level.
    section: Option<String>,
    sections: Vec<SectionReport>,
    /// Released models with these names and shapes.
    looks_like: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    /// All values that are not tensors.
    metadata: Map<String, Json>,
    /// Other values that cannot be shown, with the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    not_shown: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct SectionReport {
    name: Option<String>,
    /// Numbers in all tensors.
    values: i64,
    bytes: u64,
    tensors: Vec<Tensor>,
}

/// Reads the table of contents.
pub(super) fn inspect(path: &Path, args: &InspectArgs) -> anyhow::Result<CheckpointReport> {
    let checkpoint = Checkpoint::open(path)?;
    // A file without weights under a known name is no error here: the user then needs the list.
    let chosen = match &args.section {
        Some(name) => Some(checkpoint.section(Some(name))?),
        None => checkpoint.source(Want::Auto).ok(),
    };
    let sections = checkpoint.sections().iter().map(|section| {
        let source = checkpoint.section(section.name.as_deref())?;
        Ok(SectionReport::new(section.name.clone(), source.as_ref()))
    });
    let sections: Vec<SectionReport> = sections.collect::<weights::Result<_>>()?;
    let chosen = chosen.as_deref();
    let fingerprint = match chosen.filter(|_| args.fingerprint) {
        Some(source) => Some(fingerprint_source(source)?),
        None => None,
    };
    Ok(CheckpointReport {
        path: path.display().to_string(),
        format: checkpoint.format().to_string(),
        section: chosen.and_then(|s| s.origin().section.clone()),
        sections,
        looks_like: chosen.map(looks_like).unwrap_or_default(),
        fingerprint,
        metadata: checkpoint.metadata().clone(),
        not_shown: checkpoint.not_shown().iter().cloned().collect(),
    })
}

impl SectionReport {
    fn new(name: Option<String>, source: &dyn TensorSource) -> Self {
        let tensor = |name: &str| {
            let info = source.info(name)?;
            let kind = source.unsupported(name).map_or_else(|| kind_name(info.kind), |u| u.what.clone());
            Some(Tensor { name: name.to_owned(), shape: info.shape, kind, bytes: info.bytes })
        };
        let tensors: Vec<Tensor> = source.names().into_iter().filter_map(tensor).collect();
        SectionReport {
            name,
            values: tensors.iter().map(|t| t.shape.iter().product::<i64>()).sum(),
            bytes: tensors.iter().map(|t| t.bytes).sum(),
            tensors,
        }
    }

    fn shown_name(&self) -> &str {
        self.name.as_deref().unwrap_or("(top level)")
    }
}

impl CheckpointReport {
    pub(super) fn text(&self) -> String {
        let mut out = format!("{}: {}\n", self.path, self.format);
        out.push_str(&format!("  {:<16}{:>9}{:>16}{:>11}\n", "section", "tensors", "values", "size"));
        for s in &self.sections {
            let values = thousands(s.values.unsigned_abs());
            let (tensors, size) = (thousands(s.tensors.len() as u64), bytes(s.bytes));
            out.push_str(&format!("  {:<16}{tensors:>9}{values:>16}{size:>11}\n", s.shown_name()));
        }
        for name in &self.looks_like {
            out.push_str(&format!("  looks like {name}: every name and shape of it is there\n"));
        }
        if let Some(fingerprint) = &self.fingerprint {
            out.push_str(&format!("  fingerprint {fingerprint}\n"));
        }
        for (key, value) in &self.metadata {
            out.push_str(&format!("  {key}: {}\n", shortened(&value.to_string())));
        }
        for (key, why) in &self.not_shown {
            out.push_str(&format!("  {key}: not shown: {why}\n"));
        }
        let chosen = self.sections.iter().find(|s| s.name == self.section);
        if let Some(section) = chosen {
            out.push_str(&format!("\n{}\n", section.shown_name()));
            let width = section.tensors.iter().map(|t| t.name.len()).max().unwrap_or(0);
            for t in &section.tensors {
                let shape = format!("{:?}", t.shape);
                out.push_str(&format!("  {:<width$}  {:<8}  {shape}\n", t.name, t.kind));
            }
        }
        out
    }
}

/// A value that fits on a line or two; `--json` has all of it.
fn shortened(text: &str) -> String {
    const MOST: usize = 160;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain("…".chars()).collect()
}
