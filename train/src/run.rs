//! The training loop.
//!
//! One step: set the learning rates → for each micro-batch and phase, forward and backward,
//! several micro-batches side by side with several workers or processes → sum in the order of the
//! micro-batches → check that all losses and gradients are finite, before any update → buffers
//! (running statistics) → clip → optimizer steps → moving average → log, validate, save.
//!
//! The discriminator's gradient is taken before the generator's weights move. The official order
//! has the same result, since there too the discriminator sees the reconstruction made before the
//! generator's step.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use base::config::to_yaml;
use base::vars::Var;
use base::{Progress, Vars};
use data::Partition;
use dist::World;
use tch::{Device, Tensor};

use crate::checkpoint::{RunStats, TrainCheckpoint};
use crate::files::write_atomically;
use crate::init_from::{self, InitReport};
use crate::recipe::{CommonKeys as _, Recipe as _};
use crate::run_dir::{Lock, SkippedFiles, Start, record_start, unix_time};
use crate::shards::Shards;
use crate::step_timer::{Rates, StepTimer};
use crate::task::{DataFacts, Phase, Task, TrainingData as _};
use crate::{AdamW, Ema, Error, Log, Observer, Result, Unobserved};

/// End of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The last finished step.
    pub step: u64,
    /// True if it was stopped before its last step.
    pub interrupted: bool,
}

/// Directory, device and saved state of a run.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The run's directory.
    pub dir: &'a Path,
    /// Saved state to continue from. `None`: from the beginning.
    pub resume: Option<&'a TrainCheckpoint>,
    /// Stop flag: the current step is finished and everything saved.
    pub stop: &'a AtomicBool,
    /// Program for `run.json`: name, version, and the commit if known.
    pub program: &'a str,
    /// Name of the device, for `run.json`.
    pub device: &'a str,
    /// Whether fp32 products and convolutions use TF32, for `run.json`.
    pub tf32: bool,
    /// The processes that train together, of which this is one.
    pub world: &'a World,
    /// Peak of the device in FLOP/s, which MFU is a share of ([`crate::peak::measure`]).
    pub peak: Option<f64>,
}

/// Trains until the recipe's last step, or until stopped.
///
/// Writes `recipe.yaml`, `run.json`, `log.jsonl`, an event file for TensorBoard, `left-out.tsv` if
/// files of the data were skipped, `state/`, and the files of a model directory.
///
/// # Errors
/// Returns an error if the recipe contradicts itself, a step fails, or a file cannot be read or
/// written.
pub fn train<T: Task>(task: &mut T, run: &Run<'_>, progress: &mut dyn Progress) -> Result<Outcome> {
    train_observed(task, run, progress, &mut Unobserved)
}

/// [`train`] with an observer that is called every `every.samples` steps.
///
/// # Errors
/// Same as [`train`].
pub fn train_observed<T: Task>(
    task: &mut T,
    run: &Run<'_>,
    progress: &mut dyn Progress,
    observer: &mut dyn Observer<T>,
) -> Result<Outcome> {
    task.optimization().check()?;
    task.recipe().common().every.check()?;
    let world = run.world;
    parallel::check(task.optimization(), world)?;
    parallel::agree(&to_yaml(task.recipe())?, world)?;
    task.data_mut().share(Partition { rank: world.rank(), ranks: world.size() });
    // A saved state has all weights, and the file of the first ones may have been deleted.
    let first = if run.resume.is_none() { init_from::load_pretrained(task, progress)? } else { None };
    let mut trainer = Trainer::new(task, run)?;
    if let Some(saved) = run.resume {
        trainer.load(task, saved)?;
    }
    trainer.rehearse(task)?;
    trainer.spread()?; // equal seeds make equal weights; this makes sure
    let mut records = None;
    if world.is_first() {
        records = Some(trainer.open_files(task, first, progress)?);
    }
    if run.resume.is_some() {
        trainer.save_weights(task)?; // a kill may have come between the state and these
    }
    trainer.update_skipped(task, &mut records, progress)?;
    progress.start("training", Some(task.optimization().steps.saturating_sub(trainer.step)));
    let outcome = trainer.train(task, &mut records, progress, observer);
    progress.finish();
    records.iter().filter_map(|r| r.skipped.summary()).for_each(|text| progress.warn(&text));
    outcome
}

mod rehearsal;

/// Runs one micro-batch forward and backward through every phase of a task, as at its first step,
/// at the step at which its last phase begins, and at its last one. Nothing is trained or written.
///
/// # Errors
/// Returns the error of the first of these steps that fails.
pub fn rehearse<T: Task>(task: &mut T) -> Result<()> {
    let run = Run {
        dir: Path::new(""),
        resume: None,
        stop: &AtomicBool::new(false),
        program: "",
        device: "",
        tf32: false,
        world: &World::default(),
        peak: None,
    };
    let trainer = Trainer::new(task, &run)?;
    trainer.try_out(task, 1)?;
    trainer.rehearse(task)
}

mod parallel;
mod reports;
mod saving;
mod step;

pub(crate) use step::add;

/// Files written during a run, by its first process.
struct Records {
    log: Log,
    skipped: SkippedFiles,
    _lock: Lock,
}

struct PhaseState {
    phase: Phase,
    names: Vec<String>,
    params: Vec<Tensor>,
    shards: Shards,
    optimizer: AdamW,
}

impl PhaseState {
    fn new(task: &impl Task, i: usize, world: &World) -> Result<Self> {
        let parameters = trained(task.module(i).vars);
        let shards = Shards::new(&parameters, world)?;
        let optimizer = AdamW::of_pieces(shards.pieces_of(&parameters), &task.optimization_of(i).adamw);
        let (names, params) = parameters.into_iter().map(|v| (v.name, v.tensor)).unzip();
        Ok(PhaseState { phase: task.phases()[i], names, params, shards, optimizer })
    }
}

struct Trainer<'a> {
    run: &'a Run<'a>,
    phases: Vec<PhaseState>,
    ema: Option<Ema>,
    step: u64,
    stats: RunStats,
    /// Time of the last update of `stats.seconds`.
    clock: Instant,
    skips_in_a_row: u64,
    /// Several processes agreed to stop after the last step.
    agreed_to_stop: bool,
}

impl<'a> Trainer<'a> {
    fn new(task: &impl Task, run: &'a Run<'a>) -> Result<Self> {
        let optimization = task.optimization();
        if optimization.workers > 1 && task.module(0).vars.device() != Device::Cpu {
            let message =
                "optimization.workers: several workers are for the CPU only; on a GPU, set workers to 1";
            return Err(Error::Recipe(message.into()));
        }
        init_from::freeze(task.module(0).vars, task.recipe().common().freeze)?;
        for i in 1..task.phases().len() {
            task.module(i).vars.set_requires_grad(true);
        }
        let phases = (0..task.phases().len()).map(|i| PhaseState::new(task, i, run.world));
        let phases = phases.collect::<Result<Vec<_>>>()?;
        let kept = || phases[0].shards.pieces_of(&trained(task.module(0).vars)).into_iter();
        let kept = || kept().map(|(v, piece)| Var { tensor: piece, ..v }).collect();
        Ok(Trainer {
            run,
            ema: optimization.ema.map(|decay| Ema::new(kept(), decay)),
            phases,
            step: 0,
            stats: RunStats::default(),
            clock: Instant::now(),
            skips_in_a_row: 0,
            agreed_to_stop: false,
        })
    }

    fn world(&self) -> &'a World {
        self.run.world
    }

    /// Begins the run's directory.
    fn open_files(
        &self,
        task: &impl Task,
        first: Option<InitReport>,
        progress: &mut dyn Progress,
    ) -> Result<Records> {
        let dir = self.run.dir;
        std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        let lock = Lock::take(dir)?;
        if let Some(report) = first {
            report.write(dir)?;
        }
        if let Some(saved) = self.run.resume {
            saved.record_fork(dir)?;
        }
        write_atomically(&dir.join("recipe.yaml"), to_yaml(task.recipe())?.as_bytes())?;
        task.write_model_files(dir)?;
        self.record_start(&task.data().facts()?, progress)?;
        let skipped = SkippedFiles::open(dir, self.run.resume.is_some());
        Ok(Records { log: Log::open(dir, self.step)?, skipped, _lock: lock })
    }

    fn record_start(&self, data: &DataFacts, progress: &mut dyn Progress) -> Result<()> {
        let start = Start {
            program: self.run.program,
            device: self.run.device,
            tf32: self.run.tf32,
            processes: self.world().size(),
            threads: tch::get_num_threads(),
            peak_tflops: self.run.peak.map(|p| p / 1e12),
            after_step: self.step,
            unix_time: unix_time(),
            data,
        };
        record_start(self.run.dir, &start, progress)
    }

    fn train<T: Task>(
        &mut self,
        task: &mut T,
        records: &mut Option<Records>,
        progress: &mut dyn Progress,
        observer: &mut dyn Observer<T>,
    ) -> Result<Outcome> {
        let (steps, batch) = (task.optimization().steps, task.optimization().batch_size as u64);
        let every = task.recipe().common().every;
        let due = |interval: u64, step: u64| interval > 0 && step.is_multiple_of(interval);
        let mut timer = StepTimer::new(self.rates(task)?);
        let mut saved = self.step;
        self.clock = Instant::now();
        while self.step < steps && !self.stopped() {
            let step = self.step + 1;
            self.world().note(&format!("step {step}"));
            self.make_step(task, step, &mut timer, progress)?;
            self.step = step;
            self.stats.samples += batch;
            progress.advance(1);
            let last = step == steps;
            if due(every.log, step) || last {
                self.report_step(task, timer.take(), records, progress)?;
            }
            if (due(every.validate, step) || last) && !self.stopped() {
                self.report_validation(task, records, progress)?;
                timer.pause_over();
            }
            if (due(every.samples, step) || (last && every.samples > 0)) && !self.stopped() {
                self.report_samples(task, observer, records, progress)?;
                timer.pause_over();
            }
            if due(every.save, step) || due(every.milestone, step) || last {
                self.save(task)?;
                saved = step;
                timer.pause_over();
            }
        }
        if saved != self.step {
            self.save(task)?;
        }
        self.update_skipped(task, records, progress)?;
        Ok(Outcome { step: self.step, interrupted: self.step < steps })
    }

    fn rates(&self, task: &impl Task) -> Result<Rates> {
        let all = self.world().size() as f64;
        let share = |peak: f64| Ok::<f64, Error>(task.recipe().cost()?.flops_per_image / (peak * all));
        let peak_seconds_per_image = self.run.peak.map(share).transpose()?;
        Ok(Rates { codes_per_image: task.codes_per_image(), peak_seconds_per_image })
    }

    /// Whether to stop after this step; the same in all processes.
    fn stopped(&self) -> bool {
        match self.world().size() {
            1 => self.run.stop.load(Ordering::Relaxed),
            _ => self.agreed_to_stop,
        }
    }

    fn count_time(&mut self) {
        self.stats.seconds += self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
    }

    /// Calls `f` in every process with the average in place of the weights, if there is one.
    fn with_kept_weights<R>(&mut self, f: impl FnOnce() -> Result<R>) -> Result<R> {
        self.swap_weights()?;
        let result = f();
        self.swap_weights()?;
        result
    }

    fn swap_weights(&mut self) -> Result<()> {
        let Some(ema) = &mut self.ema else { return Ok(()) };
        ema.swap();
        self.phases[0].shards.spread(&self.phases[0].params, self.run.world)
    }

    /// Makes all weights those of the processes that own them.
    fn spread(&self) -> Result<()> {
        self.phases.iter().try_for_each(|phase| phase.shards.spread(&phase.params, self.world()))
    }
}

/// Parameters that are not frozen.
fn trained(vars: &Vars) -> Vec<Var> {
    vars.parameters().into_iter().filter(|v| v.tensor.requires_grad()).collect()
}
