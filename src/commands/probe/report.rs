//! Report of a probe.

use data::Class;
use serde::Serialize;
use train::probe::{GIGATOK_ACC, ProbeConfig, ProbeJob, ProbeResult, SubjectId};

use crate::context;

/// Result of a probe.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name of `top1`.
    pub metric: &'static str,
    pub top1: f64,
    pub top5: Option<f64>,
    pub validation_loss: f64,
    pub train_loss: f64,
    pub train_images: usize,
    pub validation_images: usize,
    /// Images that could not be decoded.
    pub skipped: Skipped,
    /// Differences from GigaTok's protocol.
    pub differences: Vec<String>,
    pub subject: SubjectId,
    pub head: ProbeConfig,
    pub steps: u64,
    pub width: i64,
    /// The class of each output of the head.
    pub classes: Vec<ClassName>,
}

/// Images that could not be decoded.
#[derive(Debug, Serialize)]
pub struct Skipped {
    pub train: usize,
    pub validation: usize,
}

/// A class as the report names it.
#[derive(Debug, Serialize)]
pub struct ClassName {
    pub index: i64,
    pub name: String,
}

impl Report {
    /// The report of a job.
    ///
    /// # Errors
    /// Returns an error if the fingerprint of the weights cannot be computed.
    pub fn new(job: &ProbeJob, result: ProbeResult) -> anyhow::Result<Self> {
        let name = |c: Class| ClassName { index: c.index, name: c.name };
        let [train, validation] = result.skipped;
        Ok(Report {
            metric: if result.differences.is_empty() { GIGATOK_ACC } else { "linear-probe accuracy" },
            top1: result.validation.top1,
            top5: result.validation.top5,
            validation_loss: result.validation.loss,
            train_loss: result.train_loss,
            train_images: result.train_images,
            validation_images: result.validation.images,
            skipped: Skipped { train, validation },
            differences: result.differences,
            subject: job.subject.id()?,
            head: job.config.clone(),
            steps: result.steps,
            width: result.width,
            classes: result.classes.into_iter().map(name).collect(),
        })
    }
}

impl context::Report for Report {
    fn text(&self) -> String {
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        // Of a share p of n images: sqrt(p (1 - p) / n).
        let spread = (self.top1 * (1.0 - self.top1) / self.validation_images as f64).sqrt();
        let mut lines = vec![
            format!("{}: top-1 {} (± {:.2})", self.metric, percent(self.top1), 100.0 * spread),
            format!("{} validation images of {} classes", self.validation_images, self.classes.len()),
            format!("cross-entropy {:.3}, in training {:.3} nats", self.validation_loss, self.train_loss),
            format!("features: {}, {} wide", self.subject.place, self.width),
        ];
        if let Some(top5) = self.top5 {
            lines[0].push_str(&format!(", top-5 {}", percent(top5)));
        }
        if !self.differences.is_empty() {
            lines.push("not comparable with published figures:".into());
            lines.extend(self.differences.iter().map(|d| format!("  {d}")));
        }
        lines.join("\n")
    }
}
