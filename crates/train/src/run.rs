//! The training loop.
//!
//! One step: set the learning rates → for each micro-batch and phase, forward and backward → check that all
//! losses and gradients are finite, before anything is updated → clip → optimizer steps → moving average → log,
//! validate, save.
//!
//! The discriminator's gradient is taken before the generator's weights move. That is the official order's
//! result, since there too the discriminator sees the reconstruction made before the generator's step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use base::{Progress, flops, rng};
use tch::Tensor;

use crate::directory::{LeftOutFiles, Lock, Start, note_start, unix_time};
use crate::meter::{Meter, Rates, Span};
use crate::optim::{clip_grad_norm, global_norm};
use crate::recipe::{Intervals, OnNonfinite};
use crate::state::{self, Keep, Moment, Saved, Tally};
use crate::task::{DataFacts, Gradients, Phase, Task};
use crate::{AdamW, Ema, Error, Log, Losses, Result, finite, summary};

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
    /// FLOP/s of which the model's FLOP utilisation is a share ([`crate::peak::measure`]).
    pub peak: Option<f64>,
}

/// Trains until the recipe's last step, or until asked to stop.
///
/// The directory gets `recipe.yaml`, `run.json`, `log.jsonl`, an event file for TensorBoard, `left-out.tsv` where
/// files of the data were left out, `state/`, and what makes it a model directory.
pub fn train<T: Task>(task: &mut T, run: &Run<'_>, progress: &mut dyn Progress) -> Result<Outcome> {
    task.optimization().check()?;
    task.intervals().check()?;
    let mut trainer = Trainer::new(task, run);
    if let Some(saved) = run.resume {
        trainer.load(task, saved)?;
    }
    let dir = run.dir;
    std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    let _lock = Lock::take(dir)?;
    state::write_atomically(&dir.join("recipe.yaml"), task.recipe_yaml()?.as_bytes())?;
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
    let outcome = trainer.train(task, &mut records, progress);
    progress.finish();
    records.left_out.summary().iter().for_each(|text| progress.warn(text));
    outcome
}

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
    fn new(task: &impl Task, run: &'a Run<'a>) -> Self {
        let optimization = task.optimization();
        let phase = |(i, &phase): (usize, &Phase)| {
            let vars = task.module(i).vars;
            vars.set_requires_grad(true);
            let parameters = vars.parameters();
            let (names, params) =
                parameters.iter().map(|v| (v.name.clone(), v.tensor.shallow_clone())).unzip();
            PhaseState {
                phase,
                names,
                params,
                optimizer: AdamW::from_config(parameters, &optimization.adamw),
            }
        };
        Trainer {
            run,
            phases: task.phases().iter().enumerate().map(phase).collect(),
            ema: optimization.ema.map(|decay| Ema::new(task.module(0).vars.parameters(), decay)),
            step: 0,
            tally: Tally::default(),
            clock: Instant::now(),
            skips_in_a_row: 0,
        }
    }

    fn note_start(&self, data: &DataFacts, progress: &mut dyn Progress) -> Result<()> {
        let start = Start {
            program: self.run.program,
            device: self.run.device,
            threads: tch::get_num_threads(),
            peak_tflops: self.run.peak.map(|p| p / 1e12),
            after_step: self.step,
            unix_time: unix_time(),
            data,
        };
        note_start(self.run.dir, &start, progress)
    }

    fn train(
        &mut self,
        task: &mut impl Task,
        records: &mut Records,
        progress: &mut dyn Progress,
    ) -> Result<Outcome> {
        let (steps, batch) = (task.optimization().steps, task.optimization().batch_size as u64);
        let every = task.intervals();
        let due = |interval: u64, step: u64| interval > 0 && step.is_multiple_of(interval);
        let mut meter = Meter::new(Rates { codes_per_image: task.codes_per_image(), peak: self.run.peak });
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

    fn make_step(
        &mut self,
        task: &mut impl Task,
        step: u64,
        meter: &mut Meter,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let skip = task.optimization().on_nonfinite == OnNonfinite::Skip;
        // Running statistics move in the forward pass already, and would keep what is not finite for ever.
        let buffers = skip.then(|| self.buffers(task));
        let active: Vec<usize> =
            (0..self.phases.len()).filter(|&i| step >= self.phases[i].phase.start).collect();
        let mut parts = self.differentiate_all(task, &active, step, meter)?;
        let clock = Instant::now();
        let verdict = active.iter().try_for_each(|&i| self.check(i, step, &mut parts[i]));
        match verdict {
            Ok(()) => {
                self.update(task, &active, step, parts, meter);
                self.skips_in_a_row = 0;
            }
            Err(error) => {
                self.skips_in_a_row += 1;
                let Some(buffers) = buffers.filter(|_| self.skips_in_a_row < TOO_MANY_SKIPS) else {
                    return Err(error);
                };
                self.tally.skipped += 1;
                tch::no_grad(|| buffers.into_iter().for_each(|(mut live, kept)| live.copy_(&kept)));
                progress.warn(&format!("{error} ({} left out so far)", self.tally.skipped));
            }
        }
        meter.add(Span::Update, clock);
        meter.images(task.optimization().batch_size);
        Ok(())
    }

    /// Losses and accumulated gradients of all micro-batches.
    fn differentiate_all(
        &self,
        task: &mut impl Task,
        active: &[usize],
        step: u64,
        meter: &mut Meter,
    ) -> Result<Vec<Part>> {
        let optimization = task.optimization().clone();
        let mut parts: Vec<Part> = self.phases.iter().map(|_| Part::default()).collect();
        for micro in 0..optimization.micro_batches {
            let clock = Instant::now();
            let mut batch = task.batch()?;
            meter.add(Span::Data, clock);
            for &i in active {
                tch::manual_seed(rng::hash(task.seed(), &[STEP, step, micro as u64, i as u64]) as i64);
                let (losses, grads) =
                    guarded(step, &optimization, || self.differentiate(task, &mut batch, i, step, meter))?;
                let part = &mut parts[i];
                part.totals.extend(losses.total().map(Tensor::detach));
                part.terms.extend(losses.terms().iter().map(|(n, v)| (*n, v.shallow_clone())));
                accumulate(&mut part.gradients, grads);
            }
        }
        Ok(parts)
    }

    /// Refuses a phase whose losses or gradients are not finite; takes its gradients' norm.
    fn check(&self, i: usize, step: u64, part: &mut Part) -> Result<()> {
        let (phase, grads) = (&self.phases[i], part.gradients());
        let (norm, finite) = finite::all_finite(&global_norm(grads), &part.totals);
        if !finite {
            let what = finite::culprits(&part.terms, &phase.names, &phase.params, grads);
            return Err(Error::NotFinite { step, phase: phase.phase.name, what });
        }
        part.norm = norm;
        Ok(())
    }

    fn update(
        &mut self,
        task: &impl Task,
        active: &[usize],
        step: u64,
        mut parts: Vec<Part>,
        meter: &mut Meter,
    ) {
        let optimization = task.optimization();
        for &i in active {
            let part = &mut parts[i];
            for (name, value) in &part.terms {
                meter.term(self.key(i, name), value);
            }
            let norm = part.norm;
            let grads = part.gradients.as_mut().expect("every active phase was differentiated");
            clip_grad_norm(grads, norm, optimization.clip);
            let phase = &mut self.phases[i];
            let lr = optimization.schedule().for_step(step, step == phase.phase.start.max(1));
            phase.optimizer.step(grads, lr);
            meter.scalar(self.key(i, "grad_norm"), norm);
            meter.scalar(self.key(i, "lr"), lr);
        }
        if let Some(ema) = &mut self.ema {
            ema.update();
        }
    }

    /// Every buffer with a copy of its values.
    fn buffers(&self, task: &impl Task) -> Vec<(Tensor, Tensor)> {
        let modules = (0..self.phases.len()).flat_map(|i| task.module(i).vars.all());
        modules.filter(|v| v.buffer).map(|v| (v.tensor.detach(), v.tensor.detach().copy())).collect()
    }

    /// Losses of one phase on one micro-batch and their gradient, divided by the number of micro-batches.
    fn differentiate<T: Task>(
        &self,
        task: &mut T,
        batch: &mut T::Batch,
        phase: usize,
        step: u64,
        meter: &mut Meter,
    ) -> Result<(Losses, Gradients)> {
        let clock = Instant::now();
        let (losses, flops) = flops::count(|| task.losses(batch, phase, step));
        let losses = losses?;
        meter.flops(flops);
        meter.add(Span::Forward, clock);
        let clock = Instant::now();
        let total = losses.total().ok_or_else(|| Error::Recipe("every loss has weight 0".into()))?;
        let parts = task.optimization().micro_batches;
        let total = if parts == 1 { total.shallow_clone() } else { total / parts as f64 };
        let gradients = Tensor::run_backward(&[total], &self.phases[phase].params, false, false);
        meter.add(Span::Backward, clock);
        Ok((losses, gradients))
    }

    /// `loss` for the model's own phase, `discriminator/loss` for others.
    fn key(&self, phase: usize, name: &str) -> String {
        if phase == 0 { name.to_owned() } else { format!("{}/{name}", self.phases[phase].phase.name) }
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

    fn save(&mut self, task: &impl Task) -> Result<()> {
        self.count_time();
        let (position, recipe) = (task.position()?, task.recipe_yaml()?);
        let moment = Moment {
            step: self.step,
            position: &position,
            recipe: &recipe,
            program: self.run.program,
            tally: self.tally,
        };
        let Intervals { keep, milestone, .. } = task.intervals();
        state::save(self.run.dir, &moment, &self.tensors(task), Keep { newest: keep, milestone })?;
        self.save_weights(task)
    }

    /// The model as it stands, for those who use it.
    fn save_weights(&mut self, task: &impl Task) -> Result<()> {
        let vars = task.module(0).vars.clone();
        let (step, path) = (self.step, self.run.dir.join("weights.safetensors"));
        self.with_kept_weights(|| {
            let tensors: Vec<(String, Tensor)> =
                vars.all().into_iter().map(|v| (v.name, v.tensor.detach())).collect();
            let metadata = [("step".to_owned(), step.to_string())].into();
            weights::save_safetensors(&path, &tensors, &metadata)
        })?;
        Ok(())
    }

    /// Everything that a resumed run needs, shared with the live run.
    fn tensors(&self, task: &impl Task) -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        for (i, phase) in self.phases.iter().enumerate() {
            let module = task.module(i);
            all.extend(
                module
                    .vars
                    .all()
                    .into_iter()
                    .map(|v| (format!("{}/{}", module.name, v.name), v.tensor.detach())),
            );
            let prefix = format!("optimizer.{}", phase.phase.name);
            all.extend(phase.optimizer.state().into_iter().map(|(n, t)| (format!("{prefix}/{n}"), t)));
        }
        if let Some(ema) = &self.ema {
            all.extend(ema.state().into_iter().map(|(n, t)| (format!("ema/{n}"), t)));
        }
        all
    }

    fn load(&mut self, task: &mut impl Task, saved: &Saved) -> Result<()> {
        let misfit = |prefix: &str, name: String| saved.misfit(&format!("`{prefix}/{name}`"));
        for (i, phase) in self.phases.iter_mut().enumerate() {
            let module = task.module(i);
            for v in module.vars.all() {
                let found = saved.tensor(&format!("{}/{}", module.name, v.name));
                let found = found.filter(|t| t.size() == v.tensor.size());
                let found =
                    found.ok_or_else(|| misfit(module.name, format!("{} {:?}", v.name, v.tensor.size())))?;
                tch::no_grad(|| v.tensor.detach().copy_(&found));
            }
            let prefix = format!("optimizer.{}", phase.phase.name);
            let get = |name: &str| saved.tensor(&format!("{prefix}/{name}"));
            phase.optimizer.load_state(get).map_err(|name| misfit(&prefix, name))?;
        }
        if let Some(ema) = &mut self.ema {
            ema.load_state(|name| saved.tensor(&format!("ema/{name}")))
                .map_err(|name| misfit("ema", name))?;
        }
        task.restore(&saved.position)?;
        (self.step, self.tally) = (saved.step, saved.tally);
        Ok(())
    }
}

const STEP: u64 = 0x57E9;

/// So many steps in a row that are not finite stop a run that leaves single ones out.
const TOO_MANY_SKIPS: u64 = 100;

/// What one phase contributes to a step.
#[derive(Default)]
struct Part {
    gradients: Option<Gradients>,
    /// Terms of all micro-batches, detached.
    terms: Vec<(&'static str, Tensor)>,
    /// The sum of the terms of each micro-batch, detached.
    totals: Vec<Tensor>,
    norm: f64,
}

impl Part {
    fn gradients(&self) -> &Gradients {
        self.gradients.as_ref().expect("every active phase was differentiated")
    }
}

/// A number that is worth telling unless it is 0.
fn counted(name: &str, n: u64) -> Option<(String, f64)> {
    (n > 0).then(|| (name.to_owned(), n as f64))
}

fn accumulate(sum: &mut Option<Gradients>, grads: Gradients) {
    let Some(sum) = sum else {
        *sum = Some(grads);
        return;
    };
    let _guard = tch::no_grad_guard();
    for (s, g) in sum.iter_mut().zip(grads) {
        match (s.defined(), g.defined()) {
            (true, true) => *s += g,
            (false, true) => *s = g,
            _ => {}
        }
    }
}

/// Turns a libtorch panic, such as running out of memory, into an error.
fn guarded<R>(
    step: u64,
    optimization: &crate::recipe::Optimization,
    f: impl FnOnce() -> Result<R>,
) -> Result<R> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let message = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("libtorch failed");
        let micro_batch = optimization.micro_batch_size();
        Err(Error::Torch { step, message: message.to_owned(), micro_batch })
    })
}
