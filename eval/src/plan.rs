//! Metrics of a run, and what they need together.

use backbones::Network;
use settings::Metric;

use crate::Result;
use crate::accumulator::AccumulateSpec;
use crate::jackknife::GROUPS;
use crate::job_error::JobError;
use crate::metric::{MetricOptions, Needs};
use crate::metrics::spec;
use crate::networks::Role;
use crate::reference_set::Reference;

/// Default metrics of reconstructions.
const FOR_PAIRS: [Metric; 6] =
    [Metric::Psnr, Metric::Ssim, Metric::SsimDr2, Metric::Lpips, Metric::Fid, Metric::Codebook];
/// Default metrics of other images: ADM's suite.
const FOR_SETS: [Metric; 5] = [Metric::Fid, Metric::Sfid, Metric::Is, Metric::Precision, Metric::Recall];

/// Kind of images that are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// Images in files.
    Files,
    /// A tokenizer's reconstructions.
    Reconstruct,
    /// A model's images.
    Generate,
    /// A transformer's predictions of codes.
    Predict,
}

/// Metrics of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Metrics in the order in which they are printed.
    pub metrics: Vec<Metric>,
    /// Options of metrics.
    pub options: MetricOptions,
    /// Network that is read instead of Inception.
    pub network: Option<Network>,
}

/// Output that a metric reads and this network does not give; none if it gives all, or none was
/// chosen.
fn lacks(network: Option<Network>, metric: Metric) -> Option<&'static str> {
    let (network, needs) = (network?, spec(metric).needs);
    match needs {
        Needs { imagenet: true, .. } => {
            (!network.classifies_imagenet()).then_some("the classes of ImageNet-1k")
        }
        Needs { logits: true, .. } => (!network.has_logits()).then_some("logits of classes"),
        Needs { spatial: true, .. } => (!network.has_spatial()).then_some("features of places"),
        _ => None,
    }
}

impl Plan {
    /// The metrics that were asked for, or the usual ones.
    ///
    /// # Errors
    /// Returns an error if the source or the network does not give what one of them needs.
    pub fn new(
        asked: &[Metric],
        source: SourceKind,
        options: MetricOptions,
        network: Option<Network>,
    ) -> Result<Self> {
        let mut metrics = match (asked.is_empty(), source) {
            (true, SourceKind::Reconstruct) => FOR_PAIRS.to_vec(),
            (true, SourceKind::Predict) => vec![Metric::ArLoss],
            (true, _) => FOR_SETS.to_vec(),
            _ => asked.to_vec(),
        };
        if asked.is_empty() {
            metrics.retain(|&m| lacks(network, m).is_none());
        }
        metrics.sort();
        metrics.dedup();
        let plan = Plan { metrics, options, network };
        plan.check_source(source)?;
        plan.check_network()?;
        Ok(plan)
    }

    fn check_source(&self, source: SourceKind) -> Result<(), JobError> {
        if source != SourceKind::Reconstruct && self.needs(|n| n.codes) {
            return Err(JobError::NeedsCodes);
        }
        if source == SourceKind::Generate && self.needs(|n| n.prompts) {
            return Err(JobError::NoPrompts);
        }
        if source == SourceKind::Predict && self.metrics.iter().any(|&m| !spec(m).needs.likelihood) {
            return Err(JobError::OnlyLikelihood);
        }
        if source != SourceKind::Predict && self.needs(|n| n.likelihood) {
            return Err(JobError::NeedsLikelihood);
        }
        Ok(())
    }

    fn check_network(&self) -> Result<(), JobError> {
        let lacking = self.metrics.iter().find_map(|&m| Some((m, lacks(self.network, m)?)));
        let (Some((metric, what)), Some(network)) = (lacking, self.network) else { return Ok(()) };
        Err(JobError::NetworkLacks { metric, what, network: network.name() })
    }

    /// Checks that the reference gives what the metrics read.
    pub fn check_reference(&self, reference: &Reference) -> Result<()> {
        if reference.images.is_some() {
            return Ok(());
        }
        let metrics = self.names(|n| n.rows || n.pairs);
        match metrics.is_empty() {
            true => Ok(()),
            false => Err(JobError::StatisticsAlone { path: reference.path.clone(), metrics }.into()),
        }
    }

    /// Checks, before the work, that there are enough images of each side.
    pub fn check_numbers(&self, samples: u64, reference: Option<u64>) -> Result<()> {
        for &metric in &self.metrics {
            let minimum = (spec(metric).minimum)(&self.options);
            let sides = [
                ("are judged", Some(samples), minimum.samples),
                ("of the reference", reference, minimum.reference),
            ];
            for (side, found, needed) in sides {
                if let Some(found) = found.filter(|&found| found < needed) {
                    let hint = minimum.hint;
                    return Err(JobError::TooFewImages { metric, needed, found, side, hint }.into());
                }
            }
        }
        Ok(())
    }

    /// Role of the network whose features a metric reads.
    pub fn role(&self, metric: Metric) -> Option<Role> {
        match spec(metric).needs.features {
            Some(Role::Classifier) if self.network.is_some() => Some(Role::Main),
            role => role,
        }
    }

    /// Whether a metric is asked for.
    pub fn has(&self, metric: Metric) -> bool {
        self.metrics.contains(&metric)
    }

    /// Whether a metric has such needs.
    pub fn needs(&self, which: impl Fn(&Needs) -> bool) -> bool {
        self.metrics.iter().any(|&m| which(&spec(m).needs))
    }

    /// Names of the metrics with such needs.
    pub fn names(&self, which: impl Fn(&Needs) -> bool) -> Vec<&'static str> {
        self.metrics.iter().filter(|&&m| which(&spec(m).needs)).map(|m| m.name()).collect()
    }

    /// Roles of the networks whose features are read.
    pub fn roles(&self) -> Vec<Role> {
        let mut roles: Vec<Role> = self.metrics.iter().filter_map(|&m| self.role(m)).collect();
        roles.sort();
        roles.dedup();
        roles
    }

    /// Sums over the features of `images` images that are judged.
    pub fn accumulate_samples(&self, role: Role, images: u64) -> AccumulateSpec {
        let mut sums = self.accumulate(role);
        if self.options.interval && sums.groups > 0 {
            sums.groups = GROUPS;
        }
        sums.scores = self.reading(role).filter_map(|needs| Some(needs.splits?(images))).collect();
        sums
    }

    /// Sums over the reference's features, whose statistics may be known already.
    pub fn accumulate_reference(&self, role: Role, pool_known: bool, spatial_known: bool) -> AccumulateSpec {
        let sums = self.accumulate(role);
        AccumulateSpec {
            groups: if pool_known { 0 } else { sums.groups },
            spatial: sums.spatial && !spatial_known,
            ..sums
        }
    }

    fn accumulate(&self, role: Role) -> AccumulateSpec {
        AccumulateSpec {
            groups: u64::from(self.reading(role).any(|needs| needs.moments)),
            spatial: self.reading(role).any(|needs| needs.spatial),
            rows: self.reading(role).any(|needs| needs.rows),
            scores: vec![],
        }
    }

    /// Needs of the metrics that read the features of a role.
    fn reading(&self, role: Role) -> impl Iterator<Item = Needs> {
        self.metrics.iter().filter(move |m| self.role(**m) == Some(role)).map(|&m| spec(m).needs)
    }
}
