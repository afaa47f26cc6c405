//! Report of a run, for people and for machines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use base::Skipped;
use cli::eval::RunArgs;
use eval::{
    ClassRow, Distribution, EvalResult, FeatureFilesResult, Gallery, Reference, Score, ScoreContext, grouped,
};
use serde::Serialize;
use serde_json::Value as Json;

use super::html;
use super::source::Source;
use crate::context::Context;
use crate::files;
use crate::resolve::device;

/// Images judged.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SamplesReport {
    /// Path as named; none for images that were made.
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
    /// Images judged.
    pub samples: SamplesReport,
    /// Images compared with.
    pub reference: Option<ReferenceReport>,
    /// The scores.
    pub values: Vec<Score>,
    /// Images whose files hold something else than 8-bit RGB, on both sides.
    pub converted: BTreeMap<String, u64>,
    /// Images that could not be read and are in no score.
    pub skipped: Vec<Skipped>,
    /// Scores that were asked for and cannot be had, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, String>,
    /// Facts to know about the scores.
    pub warnings: Vec<String>,
    /// Scores of chunks and subsets.
    pub series: BTreeMap<String, Vec<f64>>,
    /// Class agreement by class, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_agreement: Vec<ClassRow>,
    /// The page beside the scores.
    #[serde(skip)]
    pub page: PageData,
}

/// Images, plots and classes of the page.
#[derive(Debug, Default)]
pub struct PageData {
    /// Thumbnails.
    pub gallery: Gallery,
    /// Distributions to plot.
    pub distributions: Vec<Distribution>,
    /// Figures of each class in words.
    pub classes: BTreeMap<i64, Vec<String>>,
    /// Names of the classes.
    pub class_names: BTreeMap<i64, String>,
}

/// A reference as reports name it.
#[derive(Debug, Clone, Serialize)]
pub struct ReferenceReport {
    /// Path as named.
    pub path: PathBuf,
    /// SHA-256 of the file; of a folder's images, the sum of the SHA-256 of their names and pixels.
    pub sha256: Option<String>,
    /// Its kind, and how that is known.
    pub kind: String,
    /// Number of its images that were read.
    pub images: u64,
    /// Number of images that its stored statistics are of, if known.
    pub statistics_of: Option<u64>,
}

impl ReferenceReport {
    /// The reference, or the images that a tokenizer was given.
    fn new(reference: Option<&Reference>, source: &Source, context: &ScoreContext) -> Option<Self> {
        let (path, kind, statistics_of) = match (reference, source) {
            (Some(r), _) => {
                let tag = r.file.as_ref().and_then(|f| f.tag.as_ref());
                (&r.path, r.kind.clone(), tag.map(|t| t.images))
            }
            (None, Source::Reconstruct(_, set)) => (&set.path, "the originals themselves".into(), None),
            (None, Source::Files(_) | Source::Generate(_) | Source::Predict(_)) => return None,
        };
        let (path, images) = (path.clone(), context.reference.unwrap_or(0));
        Some(ReferenceReport { path, sha256: context.reference_sha256.clone(), kind, images, statistics_of })
    }
}

impl SamplesReport {
    fn new(source: &Source, images: u64, digest: String) -> Result<Self> {
        Ok(match source {
            Source::Files(set) => SamplesReport {
                path: Some(set.path.clone()),
                images,
                digest: Some(digest),
                made_by: Json::Null,
            },
            Source::Reconstruct(..) | Source::Generate(_) | Source::Predict(_) => {
                SamplesReport { path: None, images, digest: None, made_by: source.describe()? }
            }
        })
    }
}

impl Report {
    /// The report of a run.
    pub fn new(result: EvalResult, source: &Source, reference: Option<&Reference>) -> Result<Self> {
        let totals = result.totals;
        let mut converted = totals.samples.converted;
        for (what, n) in totals.reference.converted {
            *converted.entry(what).or_default() += n;
        }
        Ok(Report {
            program: device::program(),
            samples: SamplesReport::new(source, totals.samples.images, totals.samples.digest.to_string())?,
            reference: ReferenceReport::new(reference, source, &result.context),
            values: result.scores,
            converted,
            skipped: totals.skipped,
            failed: result.failed,
            warnings: result.warnings,
            series: result.series,
            class_agreement: result.class_agreement,
            page: PageData {
                gallery: totals.gallery,
                distributions: result.distributions,
                classes: result.classes,
                class_names: source.class_names(),
            },
        })
    }

    /// The report of features in files.
    pub fn of_features(samples: &Path, reference: &Path, result: FeatureFilesResult) -> Self {
        let context = result.context;
        Report {
            program: device::program(),
            samples: SamplesReport {
                path: Some(samples.to_owned()),
                images: context.samples,
                ..SamplesReport::default()
            },
            reference: Some(ReferenceReport {
                path: reference.to_owned(),
                sha256: context.reference_sha256,
                kind: "features".into(),
                images: context.reference.unwrap_or(0),
                statistics_of: None,
            }),
            values: result.scores,
            converted: BTreeMap::new(),
            skipped: vec![],
            failed: BTreeMap::new(),
            warnings: result.left_out,
            series: BTreeMap::new(),
            class_agreement: vec![],
            page: PageData::default(),
        }
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
        let labels: Vec<String> = self.values.iter().map(Score::label).collect();
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
pub fn number(value: &Score) -> String {
    match value.value {
        None => "infinite".into(),
        Some(v) if v != 0.0 && v.abs() < 1e-2 => format!("{v:.4e}"),
        Some(v) => format!("{v:.4}"),
    }
}

/// `1,120 images` or `1,120 against 50,000`.
pub fn sizes(value: &Score) -> String {
    match value.reference {
        Some(n) => format!("{} against {}", grouped(value.samples), grouped(n)),
        None => format!("{} images", grouped(value.samples)),
    }
}
