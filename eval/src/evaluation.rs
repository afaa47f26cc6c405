//! One evaluation: its job, its phases, and the run of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use backbones::{FeatureExtractor, FeatureId};
use base::{Progress, Skipped};
use dist::World;
use serde_json::{Value as Json, json};
use settings::Metric;
use tch::Device;

use crate::accumulator::{AccumulateSpec, FeatureAccumulator};
use crate::image_set::{ImageSet, OneSize};
use crate::job_error::JobError;
use crate::metric::{MetricSetup, RunMetric};
use crate::metrics::spec;
use crate::networks::{NetworkOptions, Networks, Role};
use crate::plan::Plan;
use crate::reference_set::Reference;
use crate::result::{EvalResult, ResultInputs};
use crate::runner::{EvalLoop, Partial};
use crate::shards::{Shard, read_shards};
use crate::source::{FileImages, FilePairs, Phase, Side};
use crate::state::{RunState, SavedState, Sums};
use crate::{Error, Result};

/// An evaluation, resolved.
pub struct EvalJob<'a> {
    /// Its metrics.
    pub plan: Plan,
    /// Images judged.
    pub source: EvalSource<'a>,
    /// Facts of the source.
    pub facts: SourceFacts,
    /// Images or statistics compared with.
    pub reference: Option<Reference>,
    /// Classes of ImageNet-1k among which images are judged.
    pub classes: Vec<i64>,
    /// Networks and their weights.
    pub networks: NetworkOptions,
    /// Device of the networks.
    pub device: Device,
    /// Images of a batch.
    pub batch_size: usize,
    /// Program and version.
    pub program: String,
    /// Part of the run, and its files.
    pub parts: Parts,
    /// Processes that share the work.
    pub world: &'a World,
}

/// Images judged.
pub enum EvalSource<'a> {
    /// Images in files.
    Files(ImageSet),
    /// Images or predictions of a model.
    Live(Phase<'a>),
}

/// Facts of a source for reports and for the files of interrupted runs.
pub struct SourceFacts {
    /// Source by paths, settings and weights.
    pub description: Json,
    /// Source by content; read only for runs that are saved, as a folder of many images takes a
    /// while.
    pub content: Option<String>,
    /// dtype of a model.
    pub precision: Option<String>,
    /// Resize method of the images.
    pub resize: String,
    /// Conversion of the images to 8-bit RGB.
    pub image_conversion: &'static str,
    /// Entries of the tokenizer's codebook, where images are reconstructed.
    pub codebook_size: Option<i64>,
    /// Whether the images have originals beside them.
    pub has_originals: bool,
}

/// A part of a run, and the files that hold parts.
#[derive(Debug, Clone)]
pub struct Parts {
    /// File of the state.
    pub partial: Option<PathBuf>,
    /// Part of the run.
    pub shard: Shard,
    /// Files of all parts, to be merged instead of running.
    pub merge: Vec<PathBuf>,
}

impl Parts {
    /// Whether states are read or written.
    pub fn are_saved(&self) -> bool {
        self.partial.is_some() || !self.merge.is_empty()
    }
}

/// End of a run.
pub enum Ending {
    /// A signal stopped it.
    Stopped,
    /// One of several parts is done, but for these images.
    Part(Vec<Skipped>),
    /// Scores.
    Scored(Box<EvalResult>),
    /// Another process has the result: this is not the first of several.
    Elsewhere,
}

impl EvalJob<'_> {
    /// Runs it, or merges its parts. `stop` is called when the loop begins; the loop ends after the
    /// batch in which the flag of the first process is set.
    ///
    /// # Errors
    /// Returns an error if weights are missing, if images are not comparable, or if no score can be
    /// computed.
    pub fn run(
        &self,
        stop: impl FnOnce() -> std::io::Result<Arc<AtomicBool>>,
        progress: &mut dyn Progress,
    ) -> Result<Ending> {
        let networks = Networks::open(&self.plan.roles(), &self.networks, self.device)?;
        let metrics = self.start_metrics()?;
        let own = metrics.iter().filter_map(|(_, metric)| metric.network());
        let ids: Vec<FeatureId> = networks.ids().chain(own).cloned().collect();
        announce(&ids, progress);
        let images = self.reference_images().map(|set| set.len() as u64);
        self.plan.check_numbers(self.num_images(), images)?;
        let sums = self.sums(&networks)?;
        let phases = self.phases(&sums)?;
        let first = self.world.is_first();
        let run = if first { self.description(&ids) } else { Json::Null };
        let mut state = RunState::new(&sums, &networks, metrics);
        if !self.parts.merge.is_empty() {
            let sizes: Vec<(&str, u64)> = phases.iter().map(|p| (p.phase(), p.num_images())).collect();
            let shards = read_shards(&self.parts.merge, &run, &sums, &sizes)?;
            shards.into_iter().try_for_each(|saved| state.merge(saved))?;
            return self.scored(state);
        }
        let mut one_size = OneSize::default();
        if first {
            self.resume(&mut state, &run, &sums)?;
            self.expect_size(&mut one_size)?;
        }
        let Parts { partial, shard, .. } = &self.parts;
        let partial = Partial { file: partial.as_deref(), run: &run, shard: *shard };
        let (batch_size, world, stop) = (self.batch_size, self.world, stop()?);
        let mut eval_loop =
            EvalLoop { networks: &networks, batch_size, partial, one_size, world, stop: &stop };
        if !eval_loop.run(&phases, &mut state, progress)? {
            return Ok(Ending::Stopped);
        }
        match shard.world {
            _ if !first => Ok(Ending::Elsewhere),
            1 => self.scored(state),
            _ => Ok(Ending::Part(state.totals.skipped)),
        }
    }

    fn scored(&self, state: RunState) -> Result<Ending> {
        let inputs = ResultInputs {
            plan: &self.plan,
            reference: self.reference.as_ref(),
            resize: &self.facts.resize,
            image_conversion: self.facts.image_conversion,
        };
        Ok(Ending::Scored(Box::new(EvalResult::new(&inputs, state)?)))
    }

    /// The metrics before the first image. Pairs are always scored by PSNR, which costs nothing
    /// beside the others.
    fn start_metrics(&self) -> Result<Vec<RunMetric>> {
        let pairs = self.facts.has_originals || self.plan.needs(|n| n.pairs);
        let psnr = (pairs && !self.plan.has(Metric::Psnr)).then_some(Metric::Psnr);
        let start = |metric: Metric| {
            let setup = MetricSetup {
                options: &self.plan.options,
                networks: &self.networks,
                role: self.plan.role(metric),
                device: self.device,
                codebook_size: self.facts.codebook_size,
                classes: &self.classes,
            };
            Ok((metric, (spec(metric).start)(&setup)?))
        };
        psnr.into_iter().chain(self.plan.metrics.iter().copied()).map(start).collect()
    }

    fn num_images(&self) -> u64 {
        match &self.source {
            EvalSource::Files(set) => set.len() as u64,
            EvalSource::Live(source) => source.num_images(),
        }
    }

    fn reference_images(&self) -> Option<&ImageSet> {
        self.reference.as_ref().and_then(|reference| reference.images.as_ref())
    }

    /// The passes over images that it takes.
    fn phases(&self, sums: &Sums) -> Result<Vec<Phase<'_>>> {
        let of_reference = self.reference_images();
        let judged: Phase = match (&self.source, of_reference) {
            (EvalSource::Files(set), Some(originals)) if self.plan.needs(|n| n.pairs) => {
                let originals = originals.clone().matched_with(set)?;
                return Ok(vec![Box::new(FilePairs { samples: set.clone(), originals })]);
            }
            (EvalSource::Files(set), _) => Box::new(FileImages::new(set, Side::Samples)),
            (EvalSource::Live(_), _) if self.plan.needs(|n| n.pairs) && !self.facts.has_originals => {
                return Err(JobError::NoOriginals { metrics: self.plan.names(|n| n.pairs) }.into());
            }
            (EvalSource::Live(source), _) => Box::new(&**source),
        };
        let mut phases = vec![judged];
        if let Some(set) = of_reference.filter(|set| self.reads_reference(set, sums)) {
            phases.push(Box::new(FileImages::new(set, Side::Reference)));
        }
        Ok(phases)
    }

    /// Whether stored statistics leave something to be computed from the reference's images.
    fn reads_reference(&self, images: &ImageSet, [_, reference]: &Sums) -> bool {
        let wanted = |sums: &AccumulateSpec| sums.groups > 0 || sums.spatial || sums.rows;
        reference.values().any(wanted) || (self.plan.needs(|n| n.imagenet) && images.is_labelled())
    }

    /// The sums over each network's features, of both sides.
    fn sums(&self, networks: &Networks) -> Result<Sums> {
        let roles = self.plan.roles();
        let images = self.num_images();
        let samples = roles.iter().map(|&role| (role, self.plan.accumulate_samples(role, images)));
        let mut reference = BTreeMap::new();
        for &role in &roles {
            let known = |spatial| match &self.reference {
                Some(file) => file.statistics(networks.id(role), spatial).map(|s| s.is_some()),
                None => Ok(false),
            };
            reference.insert(role, self.plan.accumulate_reference(role, known(false)?, known(true)?));
        }
        Ok([samples.collect(), reference])
    }

    /// The run, for the files of its parts.
    fn description(&self, networks: &[FeatureId]) -> Json {
        let SourceFacts { description, content, precision, resize, .. } = &self.facts;
        let content = match self.parts.are_saved() {
            true => {
                let of_reference = self.reference.as_ref().filter(|r| r.sha256.is_none());
                let of_reference = of_reference.and_then(|r| r.images.as_ref()).map(ImageSet::identity);
                json!({"samples": content, "reference": of_reference})
            }
            false => Json::Null,
        };
        json!({
            "program": self.program,
            "source": description,
            "content": content,
            "precision": precision,
            "reference": self.reference.as_ref().map(|r| json!({"path": r.path, "sha256": r.sha256})),
            "metrics": self.plan.names(|_| true),
            "networks": networks,
            "resize": resize,
            "interval": self.plan.options.interval,
            "among": self.classes,
        })
    }

    /// Adds the state of a run that was interrupted.
    fn resume(&self, state: &mut RunState, run: &Json, sums: &Sums) -> Result<()> {
        let Parts { partial, shard, .. } = &self.parts;
        let Some(file) = partial.as_deref().filter(|file| file.exists()) else { return Ok(()) };
        let saved = SavedState::load(file, run, sums)?;
        let found: Shard = serde_json::from_str(&saved.shard)?;
        if found != *shard {
            let Shard { rank, world } = found;
            return Err(JobError::OtherShard { path: file.to_owned(), rank, world }.into());
        }
        state.merge(saved)
    }

    /// Statistics beside images are of images of their size.
    fn expect_size(&self, one_size: &mut OneSize) -> Result<()> {
        let stored = self.reference.as_ref().filter(|r| r.file.as_ref().is_some_and(|f| f.pool.is_some()));
        if let Some(set) = stored.and_then(|r| r.images.as_ref())
            && let Some(Ok(first)) = set.read(&[0]).pop()
        {
            one_size.check(&format!("{}[0]", set.path.display()), first.image.dimensions())?;
        }
        Ok(())
    }
}

/// Names the networks, and warns of weights that are not the public ones.
fn announce(ids: &[FeatureId], progress: &mut dyn Progress) {
    for id in ids {
        progress.message(&format!("network: {id}"));
        if !id.comparable {
            let network = &id.network;
            progress.warn(&format!(
                "{network}: these weights are not the public ones; scores compare with nothing published"
            ));
        }
    }
}

/// Sums over the features of a reference set by one network, for a file of statistics; `None` if
/// `stop` was set. Also returns the images that were skipped. Of several processes, the first gets
/// the sums of all images.
pub fn reference_features(
    images: &ImageSet,
    (role, network): (Role, Box<dyn FeatureExtractor>),
    sums: AccumulateSpec,
    batch_size: usize,
    (world, stop): (&World, &AtomicBool),
    progress: &mut dyn Progress,
) -> Result<Option<(FeatureAccumulator, Vec<Skipped>)>> {
    let networks = Networks::one(role, network);
    let mut state = RunState::new(&[BTreeMap::new(), BTreeMap::from([(role, sums)])], &networks, vec![]);
    let partial = Partial { file: None, run: &Json::Null, shard: Shard::WHOLE };
    let one_size = OneSize::default();
    let mut eval_loop = EvalLoop { networks: &networks, batch_size, partial, one_size, world, stop };
    let phase: Phase = Box::new(FileImages::new(images, Side::Reference));
    if !eval_loop.run(&[phase], &mut state, progress)? {
        return Ok(None);
    }
    let gathered = state.reference.remove(&role).ok_or(Error::Internal("nothing was gathered"))?;
    Ok(Some((gathered, state.totals.skipped)))
}
