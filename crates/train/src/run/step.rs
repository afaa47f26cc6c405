//! One step of the loop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use base::{Progress, rng};
use tch::Tensor;

use super::Trainer;
use crate::meter::{Meter, Span};
use crate::optim::{clip_grad_norm, global_norm};
use crate::recipe::OnNonfinite;
use crate::task::{Gradients, Task};
use crate::{Error, Losses, Result, finite};

impl Trainer<'_> {
    /// One step, or none where it was not finite and may be left out.
    pub(super) fn make_step(
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
            let lr = task.optimization_of(i).schedule().for_step(step, step == phase.phase.start.max(1));
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
