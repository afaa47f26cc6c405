//! Report of a run, as text and as JSON.

mod sides;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use base::Skipped;
use eval::{ClassRow, Distribution, EvalResult, FeatureFilesResult, Gallery, Reference, Score};
use serde::Serialize;

use self::sides::{ReferenceReport, SamplesReport};
pub use self::table::{number, sizes};
use super::source::Source;
use crate::context;
use crate::resolve::device;

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
    /// Notes about the scores.
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
}

impl context::Report for Report {
    fn text(&self) -> String {
        table::table(&self.values)
    }
}
