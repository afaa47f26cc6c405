//! The end of a run: scores, and the report of them.

use anyhow::Result;
use choices::Metric;
use eval::KidSettings;
use serde_json::Value as Json;

use super::agreement;
use super::evaluation::Evaluation;
use super::reference::ReferenceReport;
use super::report::{Report, SamplesReport, grouped};
use super::scores::{PUBLISHED_IMAGES, Scoring};
use super::source::Source;
use super::state::State;
use super::tally::Tally;
use super::titles;
use super::values::Setting;
use crate::context::{Context, Outcome, report_skipped};
use crate::failure::Failure;

impl Evaluation<'_> {
    /// Scores, the report, and how it ended.
    pub fn finish(&self, state: State, context: &Context) -> Result<Outcome> {
        let tally = state.tally.clone();
        if tally.samples.images == 0 {
            let first =
                tally.skipped.first().map(|s| format!("; the first: {}", s.error)).unwrap_or_default();
            return Err(Failure::new(format!("no image could be read{first}")).into());
        }
        let setting = Setting {
            samples: tally.samples.images,
            reference: (tally.reference.images > 0).then_some(tally.reference.images),
            reference_sha256: self.reference_digest(&tally),
            resize: self.source.resize(self.args),
            image_conversion: self.source.conversion().into(),
            incomplete: !tally.skipped.is_empty(),
        };
        let scoring = Scoring {
            plan: &self.plan,
            state: &state,
            networks: &self.networks,
            reference: self.reference.as_ref(),
            setting: setting.clone(),
            neighbours: self.args.neighbours,
            kid: KidSettings {
                subsets: self.args.kid_subsets,
                size: self.args.kid_subset_size,
                ..KidSettings::default()
            },
        };
        let scores = scoring.all()?;
        let mut report = Report::new(setting, scores.values);
        report.series = scores.series;
        report.failed = scores.failed;
        report.samples = self.samples(&tally)?;
        report.reference = self.reference_report(&tally);
        let failed = report.failed.iter().map(|(name, why)| format!("{name} cannot be had: {why}"));
        report.warnings = failed.chain(self.warnings(&tally)).collect();
        report.converted = tally.samples.converted.clone();
        for (what, n) in &tally.reference.converted {
            *report.converted.entry(what.clone()).or_default() += n;
        }
        report.class_names = self.source.class_names();
        report.class_agreement = agreement::by_class(&tally);
        report.skipped = tally.skipped.clone();
        let complete = tally.skipped.is_empty() && report.failed.is_empty();
        report.tally = Some(tally);
        report_skipped(context, &report.skipped);
        report.print(self.args, context)?;
        Ok(if complete { Outcome::Done } else { Outcome::Incomplete })
    }

    /// The file's SHA-256, else the images' digest.
    fn reference_digest(&self, tally: &Tally) -> Option<String> {
        let of_file = self.reference.as_ref().and_then(|r| r.sha256.clone());
        of_file.or_else(|| (tally.reference.images > 0).then(|| tally.reference.digest.to_string()))
    }

    fn samples(&self, tally: &Tally) -> Result<SamplesReport> {
        let from_files = matches!(self.source, Source::Files(_));
        Ok(SamplesReport {
            path: match &self.source {
                Source::Files(set) => Some(set.path.clone()),
                Source::Reconstruct(..) | Source::Generate(_) | Source::Predict(_) => None,
            },
            images: tally.samples.images,
            digest: from_files.then(|| tally.samples.digest.to_string()),
            made_by: if from_files { Json::Null } else { self.source.describe()? },
        })
    }

    fn reference_report(&self, tally: &Tally) -> Option<ReferenceReport> {
        let images = tally.reference.images;
        let sha256 = self.reference_digest(tally);
        match (&self.reference, &self.source) {
            (Some(r), _) => Some(ReferenceReport {
                path: r.path.clone(),
                sha256,
                kind: r.kind.clone(),
                images,
                statistics_of: r.file.as_ref().and_then(|f| f.tag.as_ref()).map(|t| t.images),
            }),
            (None, Source::Reconstruct(_, set)) => Some(ReferenceReport {
                path: set.path.clone(),
                sha256,
                kind: "the originals themselves".into(),
                images,
                statistics_of: None,
            }),
            _ => None,
        }
    }

    /// A score's name, with its network where the name does not imply it.
    fn label(&self, metric: Metric) -> String {
        let network = self.plan.role(metric).map(|role| self.networks.features[&role].id());
        titles::label(metric.name(), network)
    }

    fn warnings(&self, tally: &Tally) -> Vec<String> {
        let mut warnings = vec![];
        let n = tally.samples.images;
        let is_frechet = |m: &&Metric| matches!(m, Metric::Fid | Metric::Sfid | Metric::Fdd);
        let frechet: Vec<String> =
            self.plan.metrics.iter().filter(is_frechet).map(|&m| self.label(m)).collect();
        if !frechet.is_empty() && n < PUBLISHED_IMAGES {
            let images = if n == 1 { "image" } else { "images" };
            warnings.push(format!(
                "scored {} {images}; {} {} biased below 50,000 and never comparable between different numbers of images",
                grouped(n),
                frechet.join(", "),
                if frechet.len() == 1 { "is" } else { "are" }
            ));
        }
        for (what, n) in tally.samples.converted.iter().chain(&tally.reference.converted) {
            warnings
                .push(format!("{n} image{} not 8-bit RGB: {what}", if *n == 1 { " is" } else { "s are" }));
        }
        if tally.pairs.identical() > 0 {
            warnings.push(format!(
                "{} pairs are identical: their infinite PSNR is left out of the mean",
                tally.pairs.identical()
            ));
        }
        warnings
    }
}
