//! The training loop.
//!
//! One step: set the learning rates → for each micro-batch and phase, forward and backward, micro-batches side by side
//! where there are workers → sum in the order of the micro-batches → check that all losses and gradients are finite,
//! before anything is updated → buffers (running statistics) → clip → optimizer steps → moving average → log,
//! validate, save.
//!
//! The discriminator's gradient is taken before the generator's weights move. That is the official order's
//! result, since there too the discriminator sees the reconstruction made before the generator's step.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use base::vars::Var;
use base::{Progress, Vars};
use tch::{Device, Tensor};

use crate::directory::{LeftOutFiles, Lock, Start, note_start, unix_time};
use crate::files::write_atomically;
use crate::meter::{Meter, Rates};
use crate::state::{Saved, Tally};
use crate::task::{DataFacts, Phase, Recipe, Task};
use crate::{AdamW, Ema, Error, Log, Observer, Result, Unobserved, initial, summary};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The last finished step.
    pub step: u64,
    /// True if it was asked to stop before its last step.
    pub interrupted: bool,
}

/// Where and how a task is trained.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The run's directory.
    pub dir: &'a Path,
    /// The saved state to go on from; from the beginning without one.
    pub resume: Option<&'a Saved>,
    /// Asks to end: the step at hand is finished and everything saved.
    pub stop: &'a AtomicBool,
    /// The program, for the run's directory: name, version, and the commit if it was built from one.
    pub program: &'a str,
    /// The device by name, for the run's directory.
    pub device: &'a str,
    /// Whether fp32 products and convolutions take TF32, for the run's directory.
    pub tf32: bool,
    /// FLOP/s of which the model's FLOP utilisation is a share ([`crate::peak::measure`]).
    pub peak: Option<f64>,
}

/// Trains until the recipe's last step, or until asked to stop.
///
/// The directory gets `recipe.yaml`, `run.json`, `log.jsonl`, an event file for TensorBoard, `left-out.tsv` where
/// files of the data were left out, `state/`, and what makes it a model directory.
pub fn train<T: Task>(task: &mut T, run: &Run<'_>, progress: &mut dyn Progress) -> Result<Outcome> {
    train_observed(task, run, progress, &mut Unobserved)
}

/// [`train`] with somebody who looks at the model every `every.samples` steps.
pub fn train_observed<T: Task>(
    task: &mut T,
    run: &Run<'_>,
    progress: &mut dyn Progress,
    observer: &mut dyn Observer<T>,
) -> Result<Outcome> {
    task.optimization().check()?;
    task.intervals().check()?;
    // A saved state has all weights, and the file of the first ones may be gone.
    let first = if run.resume.is_none() { initial::adopt(task, progress)? } else { None };
    let mut trainer = Trainer::new(task, run)?;
    if let Some(saved) = run.resume {
        trainer.load(task, saved)?;
    }
    trainer.rehearse(task)?;
    let dir = run.dir;
    std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    let _lock = Lock::take(dir)?;
    if let Some(account) = first {
        account.write(dir)?;
    }
    if let Some(saved) = run.resume {
        saved.note_fork(dir)?;
    }
    write_atomically(&dir.join("recipe.yaml"), task.recipe_yaml()?.as_bytes())?;
    task.write_model_files(dir)?;
    trainer.note_start(&task.data()?, progress)?;
    let mut records = Records {
        log: Log::open(dir, trainer.step)?,
        left_out: LeftOutFiles::open(dir, run.resume.is_some()),
    };
    if run.resume.is_some() {
        trainer.save_weights(task)?; // the kill may have fallen between the state and these
    }
    records.left_out.update(task.left_out(), progress)?;
    progress.start("training", Some(task.optimization().steps.saturating_sub(trainer.step)));
    let outcome = trainer.train(task, &mut records, progress, observer);
    progress.finish();
    records.left_out.summary().iter().for_each(|text| progress.warn(text));
    outcome
}

mod rehearsal;

/// Runs one picture or so forward and backward through every phase of a task, as at its first step, at the step at which its
/// last phase begins, and at its last one. Nothing is trained and nothing written.
///
/// # Errors
/// One of these steps would fail.
pub fn rehearse<T: Task>(task: &mut T) -> Result<()> {
    let run = Run {
        dir: Path::new(""),
        resume: None,
        stop: &AtomicBool::new(false),
        program: "",
        device: "",
        tf32: false,
        peak: None,
    };
    let trainer = Trainer::new(task, &run)?;
    trainer.try_out(task, 1)?;
    trainer.rehearse(task)
}

mod saving;
mod step;

pub(crate) use step::add;

/// What is written while a run goes on.
struct Records {
    log: Log,
    left_out: LeftOutFiles,
}

struct PhaseState {
    phase: Phase,
    names: Vec<String>,
    params: Vec<Tensor>,
    optimizer: AdamW,
}

struct Trainer<'a> {
    run: &'a Run<'a>,
    phases: Vec<PhaseState>,
    ema: Option<Ema>,
    step: u64,
    tally: Tally,
    /// When this start's share of `tally.seconds` was last added.
    clock: Instant,
    skips_in_a_row: u64,
}

impl<'a> Trainer<'a> {
    fn new(task: &impl Task, run: &'a Run<'a>) -> Result<Self> {
        let optimization = task.optimization();
        if optimization.workers > 1 && task.module(0).vars.device() != Device::Cpu {
            let message =
                "optimization.workers: micro-batches go side by side on the CPU only; a GPU takes workers 1";
            return Err(Error::Recipe(message.into()));
        }
        initial::freeze(task.module(0).vars, task.recipe().common().freeze)?;
        for i in 1..task.phases().len() {
            task.module(i).vars.set_requires_grad(true);
        }
        let phase = |(i, &phase): (usize, &Phase)| {
            let parameters = trained(task.module(i).vars);
            let (names, params) =
                parameters.iter().map(|v| (v.name.clone(), v.tensor.shallow_clone())).unzip();
            PhaseState {
                phase,
                names,
                params,
                optimizer: AdamW::from_config(parameters, &task.optimization_of(i).adamw),
            }
        };
        Ok(Trainer {
            run,
            phases: task.phases().iter().enumerate().map(phase).collect(),
            ema: optimization.ema.map(|decay| Ema::new(trained(task.module(0).vars), decay)),
            step: 0,
            tally: Tally::default(),
            clock: Instant::now(),
            skips_in_a_row: 0,
        })
    }

    fn note_start(&self, data: &DataFacts, progress: &mut dyn Progress) -> Result<()> {
        let start = Start {
            program: self.run.program,
            device: self.run.device,
            tf32: self.run.tf32,
            threads: tch::get_num_threads(),
            peak_tflops: self.run.peak.map(|p| p / 1e12),
            after_step: self.step,
            unix_time: unix_time(),
            data,
        };
        note_start(self.run.dir, &start, progress)
    }

    fn train<T: Task>(
        &mut self,
        task: &mut T,
        records: &mut Records,
        progress: &mut dyn Progress,
        observer: &mut dyn Observer<T>,
    ) -> Result<Outcome> {
        let (steps, batch) = (task.optimization().steps, task.optimization().batch_size as u64);
        let every = task.intervals();
        let due = |interval: u64, step: u64| interval > 0 && step.is_multiple_of(interval);
        let mut meter = Meter::new(self.rates(task)?);
        let mut saved = self.step;
        self.clock = Instant::now();
        while self.step < steps && !self.stopped() {
            let step = self.step + 1;
            self.make_step(task, step, &mut meter, progress)?;
            self.step = step;
            self.tally.samples += batch;
            progress.advance(1);
            let last = step == steps;
            if due(every.log, step) || last {
                records.left_out.update(task.left_out(), progress)?;
                let mut scalars = self.scalars(meter.take());
                scalars.extend(counted("left_out", records.left_out.count() as u64));
                progress.status(&summary::status(step, steps, &scalars));
                records.log.write(step, &scalars)?;
            }
            if (due(every.validate, step) || last) && !self.stopped() {
                let figures = self.validate(task)?;
                if !figures.is_empty() {
                    progress.message(&summary::line(step, steps, &figures));
                    records.log.write(step, &figures)?;
                }
                meter.pause_over();
            }
            if (due(every.samples, step) || (last && every.samples > 0)) && !self.stopped() {
                match self.with_kept_weights(|| observer.observe(task, step)) {
                    Ok(figures) if figures.is_empty() => {}
                    Ok(figures) => {
                        let named = figures.into_iter().map(|(n, v)| (format!("samples/{n}"), v));
                        records.log.write(step, &named.collect::<Vec<_>>())?;
                    }
                    Err(e) => progress.warn(&format!("no samples after step {step}: {e}")),
                }
                meter.pause_over();
            }
            if due(every.save, step) || due(every.milestone, step) || last {
                self.save(task)?;
                saved = step;
                meter.pause_over();
            }
        }
        if saved != self.step {
            self.save(task)?;
        }
        records.left_out.update(task.left_out(), progress)?;
        Ok(Outcome { step: self.step, interrupted: self.step < steps })
    }

    fn rates(&self, task: &impl Task) -> Result<Rates> {
        let share = |peak: f64| Ok::<f64, Error>(task.recipe().plan()?.flops_per_image / peak);
        let peak_seconds_per_image = self.run.peak.map(share).transpose()?;
        Ok(Rates { codes_per_image: task.codes_per_image(), peak_seconds_per_image })
    }

    fn stopped(&self) -> bool {
        self.run.stop.load(Ordering::Relaxed)
    }

    /// What was measured, after what the run has done until now.
    fn scalars(&mut self, measured: Vec<(String, f64)>) -> Vec<(String, f64)> {
        self.count_time();
        let mut all =
            vec![("seconds".into(), self.tally.seconds), ("samples".into(), self.tally.samples as f64)];
        all.extend(measured);
        all.extend(counted("skipped_steps", self.tally.skipped));
        all
    }

    fn count_time(&mut self) {
        self.tally.seconds += self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
    }

    /// Validates the weights that are kept: the average where there is one.
    fn validate(&mut self, task: &mut impl Task) -> Result<Vec<(String, f64)>> {
        let figures = self.with_kept_weights(|| task.validate())?;
        Ok(figures.into_iter().map(|(n, v)| (format!("validation/{n}"), v)).collect())
    }

    fn with_kept_weights<R>(&mut self, f: impl FnOnce() -> R) -> R {
        if let Some(ema) = &mut self.ema {
            ema.swap();
        }
        let result = f();
        if let Some(ema) = &mut self.ema {
            ema.swap();
        }
        result
    }
}

/// Parameters that are not frozen.
fn trained(vars: &Vars) -> Vec<Var> {
    vars.parameters().into_iter().filter(|v| v.tensor.requires_grad()).collect()
}

/// A number that is worth telling unless it is 0.
fn counted(name: &str, n: u64) -> Option<(String, f64)> {
    (n > 0).then(|| (name.to_owned(), n as f64))
}
