//! What each score needs.

use anyhow::Result;
use backbones::Network;
use choices::Metric;
use eval::{ADM_SPLIT_SIZE, AccumulateSpec, FIDELITY_SPLITS, GROUPS, PixelMetrics, Splits};

use super::networks::Role;
use super::source::SourceKind;
use crate::failure::Failure;

/// Whether a metric compares each image with its own original.
pub fn is_pairwise(metric: Metric) -> bool {
    matches!(metric, Metric::Psnr | Metric::Ssim | Metric::SsimDr2 | Metric::Lpips | Metric::Perceptual)
}

/// Whether it compares with a reference set.
pub fn needs_reference(metric: Metric) -> bool {
    !reads_logits(metric) && !matches!(metric, Metric::Codebook | Metric::ClipScore | Metric::ArLoss)
}

/// Whether it reads a network's logits of classes.
pub fn reads_logits(metric: Metric) -> bool {
    matches!(metric, Metric::Is | Metric::IsFidelity | Metric::ClassAgreement)
}

/// Whether it needs the reference's own rows, which statistics do not give.
pub fn needs_rows(metric: Metric) -> bool {
    use Metric as M;
    matches!(metric, M::Precision | M::Recall | M::Density | M::Coverage | M::Kid | M::Cmmd)
}

/// Scores of reconstructions.
const FOR_PAIRS: [Metric; 6] =
    [Metric::Psnr, Metric::Ssim, Metric::SsimDr2, Metric::Lpips, Metric::Fid, Metric::Codebook];
/// ADM's suite.
const FOR_SETS: [Metric; 5] = [Metric::Fid, Metric::Sfid, Metric::Is, Metric::Precision, Metric::Recall];

/// What a score reads and this network does not give; nothing where it gives all, or none was named.
fn lacks(network: Option<Network>, metric: Metric) -> Option<&'static str> {
    let network = network?;
    match metric {
        Metric::ClassAgreement => (!network.classifies_imagenet()).then_some("the classes of ImageNet-1k"),
        _ if reads_logits(metric) => (!network.has_logits()).then_some("logits of classes"),
        Metric::Sfid => (!network.has_spatial()).then_some("features of places"),
        _ => None,
    }
}

/// The scores of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are printed.
    pub metrics: Vec<Metric>,
    /// Whether intervals are wanted.
    pub interval: bool,
    /// The network that is read instead of Inception.
    pub network: Option<Network>,
}

impl Plan {
    /// What was asked for, or what is usual.
    pub fn new(
        asked: &[Metric],
        source: SourceKind,
        interval: bool,
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
        let plan = Plan { metrics, interval, network };
        plan.suits(source)?;
        plan.suits_network()?;
        Ok(plan)
    }

    /// Refuses scores that the source does not allow.
    fn suits(&self, source: SourceKind) -> Result<(), Failure> {
        if source != SourceKind::Reconstruct && self.has(Metric::Codebook) {
            return Err(Failure::new("`codebook` needs a tokenizer's codes")
                .hint("give images to encode with `--reconstruct IMAGES`"));
        }
        if source == SourceKind::Generate && self.has(Metric::ClipScore) {
            return Err(Failure::new("images of classes have no prompts, which clip_score compares with"));
        }
        let only_loss = self.metrics == [Metric::ArLoss];
        if source == SourceKind::Predict && !only_loss {
            return Err(Failure::new("`--likelihood` makes no images to score")
                .hint("its one score is `ar_loss`; `gen eval IMAGES` gives others"));
        }
        if source != SourceKind::Predict && self.has(Metric::ArLoss) {
            return Err(Failure::new("`ar_loss` is of a transformer that predicts codes")
                .hint("give labelled images or stored codes with `--likelihood DATA`"));
        }
        Ok(())
    }

    /// Refuses scores that read what the network does not give.
    fn suits_network(&self) -> Result<(), Failure> {
        let lacking = self.metrics.iter().find_map(|&m| Some((m, lacks(self.network, m)?)));
        let (Some((metric, what)), Some(network)) = (lacking, self.network) else { return Ok(()) };
        let message = format!("`{}` reads {what}, which {} does not give", metric.name(), network.name());
        Err(Failure::new(message)
            .hint("leave it out of `--metrics`, or name another network; efficientnet-lite0 gives all"))
    }

    /// The network whose features a score reads.
    pub fn role(&self, metric: Metric) -> Option<Role> {
        match metric {
            Metric::Psnr | Metric::Ssim | Metric::SsimDr2 | Metric::Lpips | Metric::Perceptual => None,
            Metric::Codebook | Metric::ClipScore | Metric::ArLoss => None,
            Metric::Fdd => Some(Role::Dino),
            Metric::Cmmd => Some(Role::Clip),
            Metric::ClassAgreement if self.network.is_none() => Some(Role::Classifier),
            _ => Some(Role::Main),
        }
    }

    /// The network whose classes are compared with the images', if that is asked for.
    pub fn classifier(&self) -> Option<Role> {
        if self.has(Metric::ClassAgreement) { self.role(Metric::ClassAgreement) } else { None }
    }

    /// Whether a score is asked for.
    pub fn has(&self, metric: Metric) -> bool {
        self.metrics.contains(&metric)
    }

    /// Those of the scores that one function chooses, by name.
    pub fn names(&self, which: impl Fn(Metric) -> bool) -> Vec<&'static str> {
        self.metrics.iter().filter(|m| which(**m)).map(|m| m.name()).collect()
    }

    /// Whether images are compared one by one.
    pub fn has_pairs(&self) -> bool {
        self.metrics.iter().any(|m| is_pairwise(*m))
    }

    /// What is computed of pairs of pixels.
    pub fn pixels(&self) -> PixelMetrics {
        PixelMetrics { ssim: self.has(Metric::Ssim), ssim_published: self.has(Metric::SsimDr2) }
    }

    /// The networks whose features are read.
    pub fn roles(&self) -> Vec<Role> {
        let mut roles: Vec<Role> = self.metrics.iter().filter_map(|m| self.role(*m)).collect();
        roles.sort();
        roles.dedup();
        roles
    }

    /// What is kept of the samples' features; `images` is how many there are.
    pub fn gather_samples(&self, role: Role, images: u64) -> AccumulateSpec {
        let mut gather = self.gather(role);
        if self.interval && gather.groups > 0 {
            gather.groups = GROUPS;
        }
        if role == Role::Main {
            if self.has(Metric::Is) {
                gather.scores.push(Splits::OfSize(ADM_SPLIT_SIZE));
            }
            if self.has(Metric::IsFidelity) {
                gather.scores.push(Splits::fidelity(images, FIDELITY_SPLITS));
            }
        }
        gather
    }

    /// What is kept of the reference's features; its statistics may be known already.
    pub fn gather_reference(&self, role: Role, pool_known: bool, spatial_known: bool) -> AccumulateSpec {
        let gather = self.gather(role);
        AccumulateSpec {
            groups: if pool_known { 0 } else { gather.groups },
            spatial: gather.spatial && !spatial_known,
            ..gather
        }
    }

    fn gather(&self, role: Role) -> AccumulateSpec {
        let mine = || self.metrics.iter().filter(|m| self.role(**m) == Some(role));
        AccumulateSpec {
            groups: u64::from(mine().any(|m| matches!(m, Metric::Fid | Metric::Fdd))),
            spatial: mine().any(|m| *m == Metric::Sfid),
            rows: mine().any(|m| needs_rows(*m)),
            scores: vec![],
        }
    }
}
