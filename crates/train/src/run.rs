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

use base::vars::Var;
use base::{Progress, Vars, rng};
use tch::Tensor;

use crate::meter::{Meter, Span};
use crate::optim::{clip_grad_norm, global_norm};
use crate::state::{self, Saved};
use crate::task::{Gradients, Phase, Recipe, Task};
use crate::{AdamW, Ema, Error, Log, Losses, Observer, Result, Unobserved, initial};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The last finished step.
    pub step: u64,
    /// True if it was asked to stop before its last step.
    pub interrupted: bool,
}

/// Trains in the directory `dir`, from the beginning or from a saved state, until the recipe's last step or until
/// `stop` becomes true; the step at hand is then finished and everything saved.
///
/// The directory gets `recipe.yaml`, `log.jsonl`, `state/`, and what makes it a model directory.
pub fn train<T: Task>(
    task: &mut T,
    dir: &Path,
    resume: Option<&Saved>,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
) -> Result<Outcome> {
    train_observed(task, dir, resume, stop, progress, &mut Unobserved)
}

/// [`train`] with somebody who looks at the model every `every.samples` steps.
pub fn train_observed<T: Task>(
    task: &mut T,
    dir: &Path,
    resume: Option<&Saved>,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
    observer: &mut dyn Observer<T>,
) -> Result<Outcome> {
    task.optimization().check()?;
    // A saved state has all weights, and the file of the first ones may be gone.
    let first = if resume.is_none() { initial::adopt(task, progress)? } else { None };
    let mut trainer = Trainer::new(task)?;
    if let Some(saved) = resume {
        trainer.load(task, saved)?;
    }
    std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    if let Some(account) = first {
        account.write(dir)?;
    }
    if let Some(saved) = resume {
        saved.note_fork(dir)?;
    }
    state::write_atomically(&dir.join("recipe.yaml"), task.recipe_yaml()?.as_bytes())?;
    task.write_model_files(dir)?;
    let mut log = Log::open(&dir.join("log.jsonl"), trainer.step)?;
    progress.start("training", Some(task.optimization().steps.saturating_sub(trainer.step)));
    let outcome = trainer.run(task, dir, &mut log, stop, progress, observer);
    progress.finish();
    outcome
}

struct PhaseState {
    phase: Phase,
    names: Vec<String>,
    params: Vec<Tensor>,
    optimizer: AdamW,
}

struct Trainer {
    phases: Vec<PhaseState>,
    ema: Option<Ema>,
    step: u64,
}

impl Trainer {
    fn new(task: &impl Task) -> Result<Self> {
        let optimization = task.optimization();
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
                optimizer: AdamW::from_config(parameters, &optimization.adamw),
            }
        };
        Ok(Trainer {
            phases: task.phases().iter().enumerate().map(phase).collect(),
            ema: optimization.ema.map(|decay| Ema::new(trained(task.module(0).vars), decay)),
            step: 0,
        })
    }

    fn run<T: Task>(
        &mut self,
        task: &mut T,
        dir: &Path,
        log: &mut Log,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
        observer: &mut dyn Observer<T>,
    ) -> Result<Outcome> {
        let steps = task.optimization().steps;
        let every = task.intervals();
        let due = |interval: u64, step: u64| interval > 0 && step.is_multiple_of(interval);
        let mut meter = Meter::new();
        let mut saved = self.step;
        while self.step < steps && !stop.load(Ordering::Relaxed) {
            let step = self.step + 1;
            self.make_step(task, step, &mut meter)?;
            self.step = step;
            progress.advance(1);
            let last = step == steps;
            if due(every.log, step) || last {
                let scalars = meter.take();
                progress.message(&summary(step, steps, &scalars));
                log.write(step, &scalars)?;
            }
            if due(every.validate, step) || last {
                let figures = self.validate(task)?;
                if !figures.is_empty() {
                    progress.message(&summary(step, steps, &figures));
                    log.write(step, &figures)?;
                }
                meter.pause_over();
            }
            if due(every.samples, step) || (last && every.samples > 0) {
                match self.with_kept_weights(|| observer.observe(task, step)) {
                    Ok(figures) if figures.is_empty() => {}
                    Ok(figures) => {
                        let named = figures.into_iter().map(|(n, v)| (format!("samples/{n}"), v));
                        log.write(step, &named.collect::<Vec<_>>())?;
                    }
                    Err(e) => progress.warn(&format!("no samples after step {step}: {e}")),
                }
                meter.pause_over();
            }
            if due(every.save, step) || last {
                self.save(task, dir)?;
                saved = step;
                meter.pause_over();
            }
        }
        if saved != self.step {
            self.save(task, dir)?;
        }
        Ok(Outcome { step: self.step, interrupted: self.step < steps })
    }

    fn make_step(&mut self, task: &mut impl Task, step: u64, meter: &mut Meter) -> Result<()> {
        let optimization = task.optimization().clone();
        let active: Vec<usize> =
            (0..self.phases.len()).filter(|&i| step >= self.phases[i].phase.start).collect();
        let mut gradients: Vec<Option<Gradients>> = self.phases.iter().map(|_| None).collect();
        let mut last_losses: Vec<Option<Losses>> = self.phases.iter().map(|_| None).collect();
        for micro in 0..optimization.micro_batches {
            let clock = Instant::now();
            let mut batch = task.batch()?;
            meter.add(Span::Data, clock);
            for &i in &active {
                tch::manual_seed(rng::hash(task.seed(), &[STEP, step, micro as u64, i as u64]) as i64);
                let (losses, grads) =
                    guarded(step, &optimization, || self.differentiate(task, &mut batch, i, step, meter))?;
                for (name, value) in losses.terms() {
                    meter.term(self.key(i, name), value);
                }
                accumulate(&mut gradients[i], grads);
                last_losses[i] = Some(losses);
            }
        }
        let clock = Instant::now();
        let mut norms = vec![0.0; self.phases.len()];
        for &i in &active {
            let grads = gradients[i].as_ref().expect("every active phase was differentiated");
            norms[i] = global_norm(grads).double_value(&[]);
            if !norms[i].is_finite() {
                return Err(self.not_finite(i, step, grads, last_losses[i].as_ref()));
            }
        }
        for &i in &active {
            let grads = gradients[i].as_mut().expect("every active phase was differentiated");
            clip_grad_norm(grads, norms[i], optimization.clip);
            let phase = &mut self.phases[i];
            let lr = optimization.schedule().for_step(step, step == phase.phase.start.max(1));
            phase.optimizer.step(grads, lr);
            meter.scalar(self.key(i, "grad_norm"), norms[i]);
            meter.scalar(self.key(i, "lr"), lr);
        }
        if let Some(ema) = &mut self.ema {
            ema.update();
        }
        meter.add(Span::Update, clock);
        meter.images(optimization.batch_size);
        Ok(())
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
        let params = &self.phases[phase].params;
        let scale = 1.0 / task.optimization().micro_batches as f64;
        if let Some(both) = task.recomputed(batch, params, scale)? {
            meter.add(Span::Backward, clock);
            return Ok(both);
        }
        let losses = task.losses(batch, phase, step)?;
        meter.add(Span::Forward, clock);
        let clock = Instant::now();
        let total = losses.total().ok_or_else(|| Error::Recipe("every loss has weight 0".into()))?;
        let total = if scale == 1.0 { total.shallow_clone() } else { total * scale };
        let gradients = Tensor::run_backward(&[total], params, false, false);
        meter.add(Span::Backward, clock);
        Ok((losses, gradients))
    }

    /// `loss` for the model's own phase, `discriminator/loss` for others.
    fn key(&self, phase: usize, name: &str) -> String {
        if phase == 0 { name.to_owned() } else { format!("{}/{name}", self.phases[phase].phase.name) }
    }

    fn not_finite(&self, phase: usize, step: u64, grads: &Gradients, losses: Option<&Losses>) -> Error {
        let bad = |t: &Tensor| !t.sum(tch::Kind::Double).double_value(&[]).is_finite();
        let terms = losses.map_or(&[][..], Losses::terms);
        let mut names: Vec<String> =
            terms.iter().filter(|(_, v)| bad(v)).map(|(n, _)| format!("loss `{n}`")).collect();
        if names.is_empty() {
            let layers = self.phases[phase].names.iter().zip(grads);
            let layers = layers.filter(|(_, g)| g.defined() && bad(g)).map(|(n, _)| n);
            names = layers.map(|n| format!("the gradient of `{n}`")).collect();
        }
        let more = names.len().saturating_sub(3);
        names.truncate(3);
        let mut what = if names.is_empty() { "the gradient's norm".to_owned() } else { names.join(", ") };
        if more > 0 {
            what = format!("{what} (and {more} more)");
        }
        Error::NotFinite { step, phase: self.phases[phase].phase.name, what }
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

    fn save(&mut self, task: &impl Task, dir: &Path) -> Result<()> {
        state::save(dir, self.step, &task.position()?, &task.recipe_yaml()?, &self.tensors(task))?;
        let vars = task.module(0).vars.clone();
        let step = self.step;
        self.with_kept_weights(|| {
            let tensors: Vec<(String, Tensor)> =
                vars.all().into_iter().map(|v| (v.name, v.tensor.detach())).collect();
            let metadata = [("step".to_owned(), step.to_string())].into();
            weights::save_safetensors(&dir.join("weights.safetensors"), &tensors, &metadata)
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
        self.step = saved.step;
        Ok(())
    }
}

const STEP: u64 = 0x57E9;

/// Parameters that are not frozen.
fn trained(vars: &Vars) -> Vec<Var> {
    vars.parameters().into_iter().filter(|v| v.tensor.requires_grad()).collect()
}

fn accumulate(sum: &mut Option<Gradients>, grads: Gradients) {
    match sum {
        Some(sum) => add(sum, grads),
        None => *sum = Some(grads),
    }
}

/// Adds gradients in place; an undefined one is none.
pub(crate) fn add(sum: &mut Gradients, grads: Gradients) {
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

/// One line for people.
fn summary(step: u64, steps: u64, scalars: &[(String, f64)]) -> String {
    let shown = scalars.iter().filter(|(n, _)| !n.starts_with("seconds/"));
    let parts: Vec<String> = shown.map(|(n, v)| format!("{n} {}", short(*v))).collect();
    format!("step {step}/{steps}  {}", parts.join("  "))
}

fn short(v: f64) -> String {
    match v.abs() {
        0.0 => "0".into(),
        a if a < 1e-3 => format!("{v:.2e}"),
        a if a < 100.0 => format!("{v:.4}"),
        _ => format!("{v:.1}"),
    }
}
