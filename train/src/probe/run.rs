//! Running a probe: from a frozen model and labelled images to an accuracy.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base::resume::{Claim, ClaimError};
use base::{Progress, rng};
use data::{Class, Dataset};
use dist::World;
use serde_json::json;
use tch::{Device, Kind, Reduction, Tensor};

use super::cache::{FeatureCache, FeaturePlan, FeatureViews, Features};
use super::classes::ClassMap;
use super::config::ProbeConfig;
use super::head::{ProbeHead, Scores};
use super::protocol;
use super::source::Training;
use super::subject::{Subject, SubjectId};
use crate::checkpoint::{self, CheckpointMeta, RunStats, StateTensors, TrainCheckpoint};
use crate::optim::Lars;
use crate::retention::RetentionPolicy;
use crate::{Error, Log, Result};

/// One probe.
pub struct ProbeJob {
    /// Probed model and layer.
    pub subject: Subject,
    /// Labelled training images.
    pub train: Arc<dyn Dataset>,
    /// Labelled images to score.
    pub validation: Arc<dyn Dataset>,
    /// Settings of the head's training.
    pub config: ProbeConfig,
    /// Number of fixed, stored views of each training image. `None`: fresh crops in each epoch.
    pub cached_views: Option<usize>,
    /// Folder of stored features, which several probes may share.
    pub cache: PathBuf,
    /// The run's folder.
    pub output: PathBuf,
    /// Largest number of damaged images in each data set.
    pub max_corrupt: usize,
    /// Device of the head.
    pub device: Device,
}

/// Result of a probe.
#[derive(Debug)]
pub struct ProbeResult {
    /// Scores on the validation images.
    pub validation: Scores,
    /// Mean training loss of the last epoch.
    pub train_loss: f64,
    /// The class of each output of the head.
    pub classes: Vec<Class>,
    /// Number of training images used.
    pub train_images: usize,
    /// Images that could not be decoded: training, validation.
    pub skipped: [usize; 2],
    /// Width of the features.
    pub width: i64,
    /// Number of steps.
    pub steps: u64,
    /// Differences from the protocol of GigaTok's "Acc.".
    pub differences: Vec<String>,
}

/// Runs a probe, from the beginning or from where an earlier call with the same settings stopped;
/// `None` if `stop` became true. Writes `settings.json`, `log.jsonl`, `state/` and
/// `head.safetensors`.
///
/// Several processes share the work on stored features. The first trains the head; the others
/// return `None` when the features are there.
///
/// # Errors
/// Returns an error for images without labels or of one class, too few images, another run's
/// folder, a file that fails, or another process that fails.
pub fn probe(
    job: &ProbeJob,
    world: &World,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Option<ProbeResult>> {
    let classes = ClassMap::new(job.train.as_ref(), job.validation.as_ref())?;
    job.config.check(job.train.len())?;
    let id = job.subject.id()?;
    let settings = world.from_first(|| claim(job, &id, &classes))?;
    let mut features = |views: FeatureViews, images: &Arc<dyn Dataset>| {
        job.features(&id, views, images, (world, stop), progress)
    };
    let Some(held_out) = features(FeatureViews::Center, &job.validation)? else { return Ok(None) };
    let stored = match job.cached_views {
        None => None,
        Some(views) => {
            let dropout = job.subject.is_random().then_some(job.config.batch_size);
            let views = FeatureViews::Random { views, seed: job.config.seed, dropout };
            let Some(features) = features(views, &job.train)? else { return Ok(None) };
            Some(features)
        }
    };
    if !world.is_first() {
        return Ok(None);
    }
    let training = match stored {
        None => Training::fresh(&job.subject, Arc::clone(&job.train), &job.config, job.max_corrupt)?,
        Some(features) => Training::cached(features, &job.config),
    };
    job.config.check(training.images())?;
    let mut trainer = Trainer::new(job, &classes, training, held_out.width(), settings)?;
    if !trainer.run(stop, progress)? {
        return Ok(None);
    }
    trainer.save_head()?;
    trainer.result(&held_out).map(Some)
}

impl ProbeJob {
    /// Stored features, computed if missing; `None` if stopped.
    fn features(
        &self,
        id: &SubjectId,
        views: FeatureViews,
        images: &Arc<dyn Dataset>,
        (world, stop): (&World, &AtomicBool),
        progress: &mut dyn Progress,
    ) -> Result<Option<Features>> {
        let plan = FeaturePlan::new(id.clone(), views, images.as_ref());
        // Rank 0 creates the folder, or rejects another plan's; the others then find it complete.
        world.from_first(|| FeatureCache::open(&self.cache, plan.clone()).map(drop))?;
        let cache = FeatureCache::open(&self.cache, plan)?;
        let limits = (self.config.batch_size, self.max_corrupt);
        let done = cache.fill(&self.subject, images, limits, (world, stop), progress)?;
        if done { cache.features().map(Some) } else { Ok(None) }
    }
}

/// Writes the settings to the run's folder, or checks that those written there are the same.
fn claim(job: &ProbeJob, id: &SubjectId, classes: &ClassMap) -> Result<String> {
    let settings = json!({
        "subject": id,
        "training": data::fingerprint(job.train.as_ref()),
        "validation": data::fingerprint(job.validation.as_ref()),
        "classes": classes.classes().iter().map(|c| c.index).collect::<Vec<_>>(),
        "head": job.config,
        "cached_views": job.cached_views,
    });
    let claim = Claim::new(job.output.join("settings.json"), &settings);
    match claim.resumes() {
        Ok(true) => {}
        Ok(false) => {
            checkpoint::check_unused(&job.output)?;
            claim.write()?;
        }
        Err(ClaimError::Differs { keys, .. }) => {
            let differences = keys.iter().map(|key| setting_name(key)).collect::<Vec<_>>().join(", ");
            return Err(Error::OtherProbe { path: job.output.clone(), differences });
        }
        Err(other) => return Err(other.into()),
    }
    Ok(settings.to_string())
}

/// Settings of the head one by one, all others by their outer key.
fn setting_name(key: &str) -> &str {
    key.strip_prefix("head.").unwrap_or_else(|| key.split('.').next().unwrap_or(key))
}

struct Trainer<'a> {
    job: &'a ProbeJob,
    classes: &'a ClassMap,
    training: Training<'a>,
    head: ProbeHead,
    optimizer: Lars,
    steps_per_epoch: u64,
    step: u64,
    epoch_loss: Tensor, // sum of the epoch's losses so far, fp64
    settings: String,
}

/// Time between saves: the most work lost when a run is killed.
const SAVE_EVERY: Duration = Duration::from_secs(60);
const HEAD: u64 = 0x4EAD;

impl<'a> Trainer<'a> {
    fn new(
        job: &'a ProbeJob,
        classes: &'a ClassMap,
        training: Training<'a>,
        width: i64,
        settings: String,
    ) -> Result<Self> {
        let config = &job.config;
        tch::manual_seed(rng::hash(config.seed, &[HEAD]) as i64);
        let head = ProbeHead::new(job.device, width, classes.classes().len() as i64, config.batch_norm);
        let optimizer = Lars::new(head.vars().parameters(), config.optimizer());
        let steps_per_epoch = (training.images() / config.images_per_step()) as u64;
        let epoch_loss = Tensor::zeros([1], (Kind::Double, job.device));
        let mut trainer = Trainer {
            job,
            classes,
            training,
            head,
            optimizer,
            steps_per_epoch,
            step: 0,
            epoch_loss,
            settings,
        };
        match TrainCheckpoint::newest(&job.output) {
            Ok((saved, _)) => trainer.load(&saved)?,
            Err(Error::NoState { .. }) => {}
            Err(other) => return Err(other),
        }
        Ok(trainer)
    }

    fn steps(&self) -> u64 {
        self.steps_per_epoch * self.job.config.epochs
    }

    /// Trains to the end, or returns false if stopped; saves in either case.
    fn run(&mut self, stop: &AtomicBool, progress: &mut dyn Progress) -> Result<bool> {
        let mut log = Log::open(&self.job.output, self.step)?;
        let (steps, begun) = (self.steps(), self.step);
        let mut saved = Instant::now();
        progress.start("probe", Some(steps - begun));
        while self.step < steps && !stop.load(Ordering::Relaxed) {
            let lr = self.make_step()?;
            self.step += 1;
            progress.advance(1);
            if self.step.is_multiple_of(self.steps_per_epoch) {
                self.end_epoch(lr, &mut log)?;
            }
            if saved.elapsed() > SAVE_EVERY {
                self.save()?;
                saved = Instant::now();
            }
        }
        progress.finish();
        if self.step > begun {
            self.save()?;
        }
        Ok(self.step == steps)
    }

    fn make_step(&mut self) -> Result<f64> {
        let config = &self.job.config;
        let (epoch, within) = (self.step / self.steps_per_epoch, self.step % self.steps_per_epoch);
        let lr = config.schedule().at(self.step as f64 / self.steps_per_epoch as f64);
        let parameters: Vec<Tensor> = self.head.vars().parameters().into_iter().map(|v| v.tensor).collect();
        let mut gradients: Vec<Tensor> = parameters.iter().map(Tensor::zeros_like).collect();
        let mut loss_sum = Tensor::zeros([1], (Kind::Double, self.job.device));
        for part in 0..config.accumulate {
            let number = within as usize * config.accumulate + part;
            let (x, y) = self.training.batch(epoch, number, self.classes, self.job.device)?;
            let loss = self.head.train(&x, part == 0).cross_entropy_loss::<Tensor>(
                &y,
                None,
                Reduction::Mean,
                -100,
                0.0,
            );
            let parts = Tensor::run_backward(&[&loss], &parameters, false, false);
            let share = 1.0 / config.accumulate as f64;
            gradients.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part * share);
            loss_sum += loss.detach().to_kind(Kind::Double) * share;
        }
        if !loss_sum.double_value(&[0]).is_finite() {
            return Err(Error::Diverged { step: self.step + 1, lr });
        }
        self.optimizer.step(&gradients, lr);
        if within == 0 {
            let _ = self.epoch_loss.zero_();
        }
        self.epoch_loss += loss_sum;
        Ok(lr)
    }

    /// Mean loss of the current epoch after its last step.
    fn train_loss(&self) -> f64 {
        self.epoch_loss.double_value(&[0]) / self.steps_per_epoch as f64
    }

    fn end_epoch(&self, lr: f64, log: &mut Log) -> Result<()> {
        let epoch = self.step / self.steps_per_epoch;
        let line = [("epoch", epoch as f64), ("loss", self.train_loss()), ("lr", lr)];
        log.write(self.step, &line.map(|(k, v)| (k.to_owned(), v)))
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let head =
            self.head.vars().all().into_iter().map(|v| (format!("head/{}", v.name), v.tensor.detach()));
        let optimizer = self.optimizer.state().into_iter().map(|(n, t)| (format!("optimizer/{n}"), t));
        let loss = [("epoch_loss".to_owned(), self.epoch_loss.shallow_clone())];
        head.chain(optimizer).chain(loss).collect()
    }

    fn save(&self) -> Result<()> {
        // The position follows from the step.
        let meta = CheckpointMeta {
            step: self.step,
            position: "",
            recipe: &self.settings,
            program: concat!("gen ", env!("CARGO_PKG_VERSION")),
            stats: RunStats::default(),
        };
        let state = StateTensors { tensors: self.tensors(), ..StateTensors::default() };
        checkpoint::save(&self.job.output, &meta, &state, RetentionPolicy::TWO, &World::default())
    }

    fn load(&mut self, saved: &TrainCheckpoint) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (name, tensor) in self.tensors() {
            let found = saved.tensor(&name).filter(|t| t.size() == tensor.size());
            let found = found.ok_or_else(|| saved.mismatch(&format!("`{name}` {:?}", tensor.size())))?;
            tensor.shallow_clone().copy_(&found);
        }
        self.step = saved.step;
        Ok(())
    }

    fn save_head(&self) -> Result<()> {
        let tensors = weights::named_tensors(self.head.vars());
        let metadata = [("settings".to_owned(), self.settings.clone())].into();
        Ok(weights::save_safetensors(&self.job.output.join("head.safetensors"), &tensors, &metadata)?)
    }

    fn result(&self, held_out: &Features) -> Result<ProbeResult> {
        let labels = self.classes.outputs(held_out.labels())?.to_device(self.job.device);
        let rows = held_out.rows((0..held_out.labels().len()).map(|i| (i, 0)))?.to_device(self.job.device);
        let validation = self.head.score(&rows, &labels)?;
        let classes = self.classes.classes().to_vec();
        let data = [self.training.images(), validation.images, classes.len()];
        Ok(ProbeResult {
            validation,
            train_loss: self.train_loss(),
            differences: protocol::differences(
                &self.job.subject,
                &self.job.config,
                self.job.cached_views,
                data,
            ),
            classes,
            train_images: data[0],
            skipped: [self.training.skipped(), held_out.skipped],
            width: held_out.width(),
            steps: self.step,
        })
    }
}
