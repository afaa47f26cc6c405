//! One step of the loop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use base::carried::{self, Changes};
use base::{Progress, random, rng};
use libtorch_ext::{side_by_side, split};
use tch::Tensor;

use super::Trainer;
use crate::optim::clip_grad_norm;
use crate::recipe::{OnNonfinite, Optimization};
use crate::step_timer::{Span, StepTimer};
use crate::task::{Gradients, Task};
use crate::{Error, Losses, Result, nan_check};

impl Trainer<'_> {
    /// One step; none if it is not finite and may be skipped.
    pub(super) fn make_step(
        &mut self,
        task: &mut impl Task,
        step: u64,
        timer: &mut StepTimer,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let skip = task.optimization().on_nonfinite == OnNonfinite::Skip;
        let active: Vec<usize> =
            (0..self.phases.len()).filter(|&i| step >= self.phases[i].phase.start).collect();
        let mut sum = match self.world().size() {
            1 => self.differentiate_all(task, &active, step, timer)?,
            _ => self.differentiate_shared(task, &active, step, timer)?,
        };
        let clock = Instant::now();
        let verdict = active.iter().try_for_each(|&i| self.check(i, step, &mut sum.parts[i]));
        match verdict {
            Ok(()) => {
                sum.changes.into_iter().for_each(Changes::apply);
                self.update(task, &active, step, sum.parts, timer)?;
                self.skips_in_a_row = 0;
            }
            Err(error) => {
                self.skips_in_a_row += 1;
                let not_finite = matches!(error, Error::NotFinite { .. });
                if !not_finite || !skip || self.skips_in_a_row >= TOO_MANY_SKIPS {
                    return Err(error);
                }
                self.stats.skipped += 1;
                progress.warn(&format!("{error} ({} left out so far)", self.stats.skipped));
            }
        }
        timer.add(Span::Update, clock.elapsed());
        timer.images(task.optimization().batch_size);
        Ok(())
    }

    /// Losses and gradients of all micro-batches, computed by the workers and summed in the order
    /// of the micro-batches.
    fn differentiate_all<T: Task>(
        &self,
        task: &mut T,
        active: &[usize],
        step: u64,
        timer: &mut StepTimer,
    ) -> Result<Sum> {
        let micro_batches = task.optimization().micro_batches;
        let (workers, _) = split(task.optimization().workers);
        // A single worker needs only one micro-batch in memory.
        let at_once = if workers == 1 { 1 } else { micro_batches };
        let mut sum = Sum::new(self.phases.len());
        let mut failed = None;
        for first in (0..micro_batches).step_by(at_once) {
            let clock = Instant::now();
            let batches = (0..at_once).map(|_| task.batch()).collect::<Result<Vec<_>>>()?;
            timer.add(Span::Data, clock.elapsed());
            let work = |&(trainer, task): &(&Self, &T), i: usize, batch| {
                trainer.micro_batch(task, batch, active, step, first + i)
            };
            side_by_side(&(self, &*task), workers, batches, work, |one| match one {
                Ok(one) if failed.is_none() => sum.add(one, workers, timer),
                Err(error) => drop(failed.get_or_insert(error)),
                Ok(_) => {}
            });
        }
        failed.map_or(Ok(sum), Err)
    }

    /// Differentiates all phases on one micro-batch.
    pub(super) fn micro_batch<T: Task>(
        &self,
        task: &T,
        mut batch: T::Batch,
        active: &[usize],
        step: u64,
        micro: usize,
    ) -> Result<MicroBatch> {
        let device = task.module(0).vars.device();
        let mut phase = |&i: &usize| {
            let seed = rng::hash(task.seed(), &[STEP, step, micro as u64, i as u64]);
            random::seeded(device, seed.cast_signed(), || self.differentiate(task, &mut batch, i, step))
        };
        guarded(step, task.optimization(), || {
            let (phases, changes) = carried::collect(|| active.iter().map(&mut phase).collect::<Result<_>>());
            Ok(MicroBatch { phases: phases?, changes })
        })
    }

    /// Refuses a phase whose losses or gradients are not finite; stores its gradients' norm.
    fn check(&self, i: usize, step: u64, part: &mut Part) -> Result<()> {
        let (phase, world) = (&self.phases[i], self.world());
        let norm = phase.shards.norm(part.gradients(), world)?;
        let (norm, finite) = nan_check::all_finite(&norm, &part.totals);
        if !finite {
            let names = phase.shards.piece_names();
            let pieces: Vec<Tensor> = phase.shards.views_of(&phase.params);
            let layers = nan_check::bad_layers(&names, &pieces, part.gradients());
            let mut layers = world.all_gather_values(layers)?.concat();
            layers.dedup();
            let what = nan_check::non_finite_report(nan_check::bad_losses(&part.terms), layers);
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
        timer: &mut StepTimer,
    ) -> Result<()> {
        let optimization = task.optimization();
        for &i in active {
            let part = &mut parts[i];
            for (name, value) in &part.terms {
                timer.term(self.key(i, name), value);
            }
            let norm = part.norm;
            let grads = part.gradients.as_mut().expect("every active phase was differentiated");
            clip_grad_norm(grads, norm, optimization.clip);
            let phase = &mut self.phases[i];
            let lr = task.optimization_of(i).schedule().for_step(step, step == phase.phase.start.max(1));
            phase.optimizer.step(grads, lr);
            phase.shards.spread(&phase.params, self.run.world)?;
            timer.scalar(self.key(i, "grad_norm"), norm);
            timer.scalar(self.key(i, "lr"), lr);
        }
        if let Some(ema) = &mut self.ema {
            ema.update();
        }
        Ok(())
    }

    /// Losses of one phase on one micro-batch and their gradient, divided by the number of
    /// micro-batches.
    fn differentiate<T: Task>(
        &self,
        task: &T,
        batch: &mut T::Batch,
        phase: usize,
        step: u64,
    ) -> Result<Differentiated> {
        let clock = Instant::now();
        let params = &self.phases[phase].params;
        let scale = 1.0 / task.optimization().micro_batches as f64;
        if let Some((losses, gradients)) = task.recomputed(batch, params, scale)? {
            let seconds = [Duration::ZERO, clock.elapsed()];
            return Ok(Differentiated { phase, losses, gradients, seconds });
        }
        let losses = task.losses(batch, phase, step)?;
        let forward = clock.elapsed();
        let total = losses.total().ok_or_else(|| Error::Recipe("every loss has weight 0".into()))?;
        if !total.requires_grad() {
            // libtorch's engine follows the graph of such a loss without a check.
            let phase = self.phases[phase].phase.name;
            return Err(Error::Recipe(format!("{phase}: no loss depends on a trained parameter")));
        }
        let total = if scale == 1.0 { total.shallow_clone() } else { total * scale };
        let gradients = Tensor::run_backward(&[total], params, false, false);
        let seconds = [forward, clock.elapsed() - forward];
        Ok(Differentiated { phase, losses, gradients, seconds })
    }

    /// Key in the log: `loss` for the model's phase, `discriminator/loss` for others.
    fn key(&self, phase: usize, name: &str) -> String {
        if phase == 0 { name.to_owned() } else { format!("{}/{name}", self.phases[phase].phase.name) }
    }
}

const STEP: u64 = 0x57E9;

/// Number of skipped steps in a row that stop a run.
const TOO_MANY_SKIPS: u64 = 100;

/// Losses and gradients of one phase on a micro-batch.
pub(super) struct Differentiated {
    pub phase: usize,
    pub losses: Losses,
    pub gradients: Gradients,
    /// Forward and backward.
    seconds: [Duration; 2],
}

/// Losses, gradients and buffer changes of one micro-batch.
pub(super) struct MicroBatch {
    pub phases: Vec<Differentiated>,
    pub changes: Changes,
}

impl MicroBatch {
    /// Adds its times, of a process that does nothing beside it.
    pub fn count_time(&self, timer: &mut StepTimer) {
        for one in &self.phases {
            one.seconds.iter().zip([Span::Forward, Span::Backward]).for_each(|(t, span)| timer.add(span, *t));
        }
    }
}

/// Sum over the micro-batches of a step.
pub(super) struct Sum {
    pub parts: Vec<Part>,
    pub changes: Vec<Changes>,
}

impl Sum {
    pub fn new(phases: usize) -> Self {
        Sum { parts: (0..phases).map(|_| Part::default()).collect(), changes: vec![] }
    }

    fn add(&mut self, one: MicroBatch, workers: usize, timer: &mut StepTimer) {
        for Differentiated { phase, losses, gradients, seconds } in one.phases {
            let part = &mut self.parts[phase];
            part.totals.extend(losses.total().map(Tensor::detach));
            part.terms.extend(losses.terms().iter().map(|(n, v)| (*n, v.shallow_clone())));
            accumulate(&mut part.gradients, gradients);
            for (span, seconds) in [Span::Forward, Span::Backward].into_iter().zip(seconds) {
                timer.add(span, seconds / workers as u32); // side by side
            }
        }
        self.changes.push(one.changes);
    }
}

/// Share of one phase in a step.
#[derive(Default)]
pub(super) struct Part {
    /// Of this process's pieces of the parameters.
    pub gradients: Option<Gradients>,
    /// Terms of all micro-batches, detached.
    pub terms: Vec<(&'static str, Tensor)>,
    /// Total loss of each micro-batch, detached.
    pub totals: Vec<Tensor>,
    norm: f64,
}

impl Part {
    fn gradients(&self) -> &Gradients {
        self.gradients.as_ref().expect("every active phase was differentiated")
    }
}

fn accumulate(sum: &mut Option<Gradients>, grads: Gradients) {
    match sum {
        Some(sum) => add(sum, grads),
        None => *sum = Some(grads),
    }
}

/// Adds gradients in place; undefined ones count as 0.
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
fn guarded<R>(step: u64, optimization: &Optimization, f: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let message = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("libtorch failed");
        let micro_batch = optimization.micro_batch_size();
        Err(Error::Torch { step, message: message.to_owned(), micro_batch })
    })
}
