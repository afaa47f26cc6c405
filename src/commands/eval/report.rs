//! What a run found, for people and for machines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cli::eval::RunArgs;
use serde::Serialize;
use serde_json::Value as Json;

use super::agreement::ClassRow;
use super::html;
use super::reference::ReferenceReport;
use super::tally::Tally;
use super::values::{Setting, Value};
use crate::context::Context;
use crate::files;
use crate::inputs::Skipped;
use crate::settings::device;

/// What was judged.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SamplesReport {
    /// What was named, or nothing for images that were made.
    pub path: Option<PathBuf>,
    /// Images scored.
    pub images: u64,
    /// The sum of the SHA-256 of their names and pixels, where they were read from files.
    pub digest: Option<String>,
    /// The settings of a model that made them, or the tokenizer's weights.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub made_by: Json,
}

/// One evaluation.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Program and version.
    pub program: String,
    /// What was judged.
    pub samples: SamplesReport,
    /// What it was compared with.
    pub reference: Option<ReferenceReport>,
    /// The scores.
    pub values: Vec<Value>,
    /// Images whose files hold something else than 8-bit RGB, on both sides.
    pub converted: BTreeMap<String, u64>,
    /// What could not be read and is in no score.
    pub skipped: Vec<Skipped>,
    /// Scores that were asked for and cannot be had, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, String>,
    /// What is to be known of the scores.
    pub warnings: Vec<String>,
    /// Scores of chunks and subsets.
    pub series: BTreeMap<String, Vec<f64>>,
    /// Class agreement by class, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_agreement: Vec<ClassRow>,
    /// What the page shows beside scores.
    #[serde(skip)]
    pub tally: Option<Tally>,
    /// Class → name.
    #[serde(skip)]
    pub class_names: BTreeMap<i64, String>,
}

impl Report {
    /// A report of these scores.
    pub fn new(setting: Setting, values: Vec<Value>) -> Self {
        Report {
            program: device::program(),
            samples: SamplesReport { images: setting.samples, ..SamplesReport::default() },
            reference: None,
            values,
            converted: BTreeMap::new(),
            skipped: vec![],
            failed: BTreeMap::new(),
            warnings: vec![],
            series: BTreeMap::new(),
            class_agreement: vec![],
            tally: None,
            class_names: BTreeMap::new(),
        }
    }

    /// Names a file that was compared with.
    pub fn reference_named(&mut self, path: &Path, setting: &Setting) {
        self.reference = Some(ReferenceReport {
            path: path.to_owned(),
            sha256: setting.reference_sha256.clone(),
            kind: "features".into(),
            images: setting.reference.unwrap_or(0),
            statistics_of: None,
        });
    }

    /// Prints the table or the JSON document, the warnings, and the page if one is asked for.
    pub fn print(&self, args: &RunArgs, context: &Context) -> Result<()> {
        for warning in &self.warnings {
            context.printer.warning(warning);
        }
        if let Some(path) = &args.report {
            files::write(path, html::page(self)?.as_bytes())?;
            context.printer.note(&format!("report: {}", path.display()));
        }
        match args.json.json {
            true => context.printer.json(self),
            false => Ok(context.printer.line(&self.table())?),
        }
    }

    fn table(&self) -> String {
        let labels: Vec<String> = self.values.iter().map(Value::label).collect();
        let width = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
        let lines = self.values.iter().zip(&labels).map(|(v, label)| {
            let mut line = format!("{label:<width$}  {:>12}", number(v));
            if let Some([low, high]) = v.interval {
                line.push_str(&format!("  95 % in {low:.4} to {high:.4}"));
            }
            if let Some(std) = v.std {
                line.push_str(&format!("  ± {std:.4}"));
            }
            let mark = if v.comparable { "" } else { "  (not comparable)" };
            format!("{line}  {}{mark}", sizes(v))
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// A score as it is shown.
pub fn number(value: &Value) -> String {
    match value.value {
        None => "infinite".into(),
        Some(v) if v != 0.0 && v.abs() < 1e-2 => format!("{v:.4e}"),
        Some(v) => format!("{v:.4}"),
    }
}

/// `1,120 images` or `1,120 against 50,000`.
pub fn sizes(value: &Value) -> String {
    match value.reference {
        Some(n) => format!("{} against {}", grouped(value.samples), grouped(n)),
        None => format!("{} images", grouped(value.samples)),
    }
}

/// 50000 → `50,000`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let parts: Vec<&str> =
        (0..digits.len()).rev().step_by(3).map(|end| &digits[end.saturating_sub(2)..=end]).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        assert_eq!([0, 12, 999, 1000, 1_281_167].map(grouped), ["0", "12", "999", "1,000", "1,281,167"]);
    }
}
