//! One run: what it walks over, what it keeps, and what it belongs to.

use std::collections::BTreeMap;

use anyhow::Result;
use choices::Metric;
use cli::eval::RunArgs;
use eval::{AccumulateSpec, ClassAgreement, CodebookUsage, FeatureAccumulator, GROUPS};
use serde_json::{Value as Json, json};

use super::images::{ImageSet, OneSize};
use super::metrics::{self, Plan};
use super::networks::{Networks, Role};
use super::parts::Shard;
use super::reference::{self, Reference};
use super::sets::{ADM_NEIGHBOURS, PRDC_NEIGHBOURS};
use super::source::Source;
use super::state::{State, Wanted};
use super::work::{Job, Originals, Phase, Reconstruction};
use crate::context::Context;
use crate::failure::Failure;
use crate::settings::device;

/// The reference, if the plan needs one: named, or the images that a tokenizer is given.
pub fn open_reference(
    args: &RunArgs,
    source: &Source,
    plan: &Plan,
    context: &Context,
) -> Result<Option<Reference>> {
    let Some(path) = &args.reference else {
        let lacking = plan.names(metrics::needs_reference);
        if lacking.is_empty() || matches!(source, Source::Reconstruct(..)) {
            return Ok(None);
        }
        let message = format!("{} need a reference to compare with", lacking.join(", "));
        return Err(Failure::new(message)
            .hint("name it: `--reference PATH`, images or statistics; `--metrics` chooses other scores")
            .into());
    };
    let resize = match source {
        Source::Reconstruct(_, set) => args.score_size.or(set.side()),
        _ => args.resize,
    };
    let sha256 = args.reference_sha256.as_deref();
    let mut reference = Reference::open(path, resize, source.protocol(args), sha256, context)?;
    reference.must_serve(plan)?;
    if plan.has(Metric::ClassAgreement) {
        reference.label(context);
    }
    reference::note(&reference, context);
    Ok(Some(reference))
}

/// One run.
pub struct Evaluation<'a> {
    /// What was typed.
    pub args: &'a RunArgs,
    /// Its scores.
    pub plan: Plan,
    /// What is judged.
    pub source: Source,
    /// What it is compared with.
    pub reference: Option<Reference>,
    /// The classes among which class agreement is also judged.
    pub classes: Vec<i64>,
    /// The networks.
    pub networks: Networks,
}

impl Evaluation<'_> {
    /// The walks over images that it takes.
    pub fn phases(&self) -> Result<Vec<Phase<'_>>> {
        let of_reference = |set: &ImageSet| Phase { name: "reference", job: Job::Reference(set.clone()) };
        let reference_images = self.reference.as_ref().and_then(|r| r.images.as_ref());
        let mut phases = match (&self.source, reference_images) {
            (Source::Files(set), Some(originals)) if self.plan.has_pairs() => {
                let originals = originals.clone().matched_with(set)?;
                return Ok(vec![Phase { name: "pairs", job: Job::Pairs(set.clone(), originals) }]);
            }
            (Source::Files(set), _) => vec![Phase { name: "images", job: Job::Samples(set.clone()) }],
            (Source::Reconstruct(tokenizer, set), _) => {
                let side = self.args.score_size.filter(|&side| Some(side) != set.side());
                let reference = match (self.reference.is_some(), side) {
                    (true, _) => Originals::Elsewhere,
                    (false, None) => Originals::AsGiven,
                    (false, Some(side)) => Originals::Cropped(set.cropped(side)),
                };
                let job = Reconstruction { tokenizer, images: set.clone(), side, reference };
                vec![Phase { name: "reconstructions", job: Job::Reconstruct(job) }]
            }
            (Source::Predict(predictor), _) => {
                vec![Phase { name: "codes", job: Job::Predict(predictor) }]
            }
            (Source::Generate(_), _) if self.plan.has_pairs() => {
                let names = self.plan.names(metrics::is_pairwise).join(", ");
                return Err(Failure::new(format!(
                    "a model's images have no originals, which {names} compare with"
                ))
                .into());
            }
            (Source::Generate(generator), _) => vec![Phase { name: "images", job: Job::Generate(generator) }],
        };
        if self.reads_reference_images()?
            && let Some(set) = reference_images
        {
            phases.push(of_reference(set));
        }
        Ok(phases)
    }

    /// Whether stored statistics leave something to be computed from the reference's images.
    fn reads_reference_images(&self) -> Result<bool> {
        for role in self.plan.roles() {
            let gather = self.gather_reference(role)?;
            if gather.groups > 0 || gather.spatial || gather.rows {
                return Ok(true);
            }
        }
        let labelled =
            self.reference.as_ref().and_then(|r| r.images.as_ref()).is_some_and(ImageSet::is_labelled);
        Ok(self.plan.has(Metric::ClassAgreement) && labelled)
    }

    fn gather_reference(&self, role: Role) -> Result<AccumulateSpec> {
        let id = self.networks.features[&role].id();
        let known = |spatial| match &self.reference {
            Some(reference) => reference.stored(id, spatial).map(|s| s.is_some()),
            None => Ok(false),
        };
        Ok(self.plan.gather_reference(role, known(false)?, known(true)?))
    }

    /// What is kept of each network's features.
    pub fn wanted(&self) -> Result<Wanted> {
        let roles = self.plan.roles();
        let samples = roles.iter().map(|&role| (role, self.plan.gather_samples(role, self.source.len())));
        let mut reference = BTreeMap::new();
        for &role in &roles {
            reference.insert(role, self.gather_reference(role)?);
        }
        Ok([samples.collect(), reference])
    }

    /// The run, for partial files.
    pub fn description(&self) -> Result<Json> {
        let live = !matches!(self.source, Source::Files(_));
        // Read only where it is compared or kept: a folder of many images takes a while.
        let content = match self.args.parts.partial.is_some() || !self.args.parts.merge.is_empty() {
            true => {
                let of_reference = self.reference.as_ref().filter(|r| r.sha256.is_none());
                let of_reference = of_reference.and_then(|r| r.images.as_ref()).map(ImageSet::identity);
                json!({"samples": self.source.identity()?, "reference": of_reference})
            }
            false => Json::Null,
        };
        Ok(json!({
            "program": device::program(),
            "source": self.source.describe()?,
            "content": content,
            "precision": live.then(|| self.args.compute.precision.to_string()),
            "reference": self.reference.as_ref().map(|r| json!({"path": r.path, "sha256": r.sha256})),
            "metrics": self.plan.names(|_| true),
            "networks": self.networks.ids(),
            "resize": self.source.resize(self.args),
            "interval": self.plan.interval,
            "among": self.classes,
        }))
    }

    /// Refuses, before the work, scores that so few images cannot have.
    pub fn must_have_enough(&self) -> Result<()> {
        let samples = self.source.len();
        let images = self.reference.as_ref().and_then(|r| r.images.as_ref()).map(|set| set.len() as u64);
        for &metric in &self.plan.metrics {
            let (needed, of_reference) = match metric {
                Metric::Fid | Metric::Fdd if self.plan.interval => (GROUPS, false),
                Metric::Fid | Metric::Sfid | Metric::Fdd => (2, false),
                Metric::Kid => (self.args.kid_subset_size as u64, true),
                Metric::Precision | Metric::Recall => (self.neighbours(ADM_NEIGHBOURS) + 1, true),
                Metric::Density | Metric::Coverage => (self.neighbours(PRDC_NEIGHBOURS) + 1, true),
                _ => continue,
            };
            let sides =
                [("are judged", Some(samples)), ("of the reference", images.filter(|_| of_reference))];
            for (side, found) in sides {
                if let Some(found) = found.filter(|&found| found < needed) {
                    let name = metric.name();
                    let message = format!("{name} needs at least {needed} images; {found} {side}");
                    let hint = match metric {
                        Metric::Kid => "`--kid-subset-size` takes smaller subsets",
                        _ => "leave it out of `--metrics`",
                    };
                    return Err(Failure::new(message).hint(hint).into());
                }
            }
        }
        Ok(())
    }

    fn neighbours(&self, usual: i64) -> u64 {
        self.args.neighbours.unwrap_or(usual).unsigned_abs()
    }

    /// A kept state, or a new one.
    pub fn begin(&self, run: &Json, wanted: &Wanted, shard: Shard) -> Result<State> {
        if let Some(file) = self.args.parts.partial.as_deref().filter(|f| f.exists()) {
            let (state, found) = State::load(file, run, wanted)?;
            if found != shard {
                let message = format!("`{}` is shard {}/{}", file.display(), found.rank, found.world);
                return Err(Failure::new(message).hint("each shard has its own `--partial` file").into());
            }
            return Ok(state);
        }
        let collectors = |gathers: &BTreeMap<Role, AccumulateSpec>| {
            let of = |(role, gather): (&Role, &AccumulateSpec)| {
                (*role, FeatureAccumulator::new(self.networks.features[role].id().clone(), gather.clone()))
            };
            gathers.iter().map(of).collect()
        };
        let mut state = State::new(collectors(&wanted[0]), collectors(&wanted[1]));
        if let Source::Reconstruct(tokenizer, _) = &self.source
            && self.plan.has(Metric::Codebook)
        {
            state.tally.codebook = Some(CodebookUsage::new(tokenizer.codebook_size()));
        }
        if self.plan.has(Metric::ClassAgreement) {
            let begun = ClassAgreement::new(self.classes.iter().copied());
            (state.tally.agreement, state.tally.reference_agreement) = (Some(begun.clone()), Some(begun));
        }
        Ok(state)
    }

    /// Statistics that lie beside images are of images of their size.
    pub fn expect_size(&self, one_size: &mut OneSize) -> Result<()> {
        let stored = self.reference.as_ref().filter(|r| r.file.as_ref().is_some_and(|f| f.pool.is_some()));
        if let Some(set) = stored.and_then(|r| r.images.as_ref())
            && let Some(Ok(first)) = set.read(&[0]).pop()
        {
            one_size.check(&format!("{}[0]", set.path.display()), first.image.dimensions())?;
        }
        Ok(())
    }
}
