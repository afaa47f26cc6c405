//! Training by several processes, with the bits of one.
//!
//! The micro-batches of a step are numbered over all processes: process r of R differentiates
//! number r of each round of R. Everything random, the place in the data and the order of every
//! sum go by that number. Gradients meet at their owners ([`crate::shards`]); losses and changes of
//! buffers, few numbers, everywhere.
//!
//! R processes, P parameters of a phase

use std::sync::atomic::Ordering;
use std::time::Instant;

use base::hash::fnv1a;
use dist::World;
use libtorch_ext::split;
use tch::Tensor;

use super::Trainer;
use super::step::{MicroBatch, Sum};
use crate::recipe::Optimization;
use crate::step_timer::{Span, StepTimer};
use crate::task::Task;
use crate::{Error, Result};

/// Checks that the processes can share the micro-batches of a step.
pub(super) fn check(optimization: &Optimization, world: &World) -> Result<()> {
    let (processes, parts) = (world.size(), optimization.micro_batches);
    if !parts.is_multiple_of(processes) {
        return Err(Error::Recipe(format!(
            "optimization.micro_batches: {processes} processes cannot share {parts}; set it to a multiple of \
             {processes}, or start fewer processes"
        )));
    }
    if processes > 1 && split(optimization.workers).0 > 1 {
        return Err(Error::Recipe(
            "optimization.workers: several processes have one worker each; set it to 1".into(),
        ));
    }
    Ok(())
}

/// Checks that all processes train by the same recipe.
pub(super) fn agree(recipe: &str, world: &World) -> Result<()> {
    let all = world.all_gather_values(format!("{:016x}", fnv1a(recipe)))?;
    match all.iter().position(|hash| *hash != all[0]) {
        None => Ok(()),
        Some(second) => {
            let found = format!("{} and {}", all[0], all[second]);
            Err(dist::Error::Mismatch { first: 0, second, what: "the recipe's hash", found }.into())
        }
    }
}

impl Trainer<'_> {
    /// Losses and gradients of this process's micro-batches; sums of all processes' losses, and of
    /// their gradients of its own pieces.
    pub(super) fn differentiate_shared<T: Task>(
        &mut self,
        task: &mut T,
        active: &[usize],
        step: u64,
        timer: &mut StepTimer,
    ) -> Result<Sum> {
        let world = self.world();
        let device = task.module(0).vars.device();
        let mut sum = Sum::new(self.phases.len());
        let mut gradients: Vec<Option<Tensor>> = self.phases.iter().map(|_| None).collect();
        let mut took_part: Vec<Vec<bool>> =
            self.phases.iter().map(|phase| vec![false; phase.shards.parameters()]).collect();
        for round in 0..task.optimization().micro_batches / world.size() {
            let clock = Instant::now();
            let batch = task.batch()?;
            timer.add(Span::Data, clock.elapsed());
            let own = self.micro_batch(task, batch, active, step, round * world.size() + world.rank())?;
            own.count_time(timer);
            for one in &own.phases {
                let shards = &self.phases[one.phase].shards;
                shards.add_round(&mut gradients[one.phase], shards.flatten(&one.gradients), world)?;
            }
            let mut numbers = vec![f64::from(u8::from(self.run.stop.load(Ordering::Relaxed)))];
            numbers.extend(own.numbers()?);
            for all in world.all_gather(&numbers)? {
                self.agreed_to_stop |= all[0] > 0.0;
                sum.add_numbers(&own, &all[1..], &mut took_part);
            }
        }
        for &i in active {
            let sum_of_own = gradients[i].take().unwrap_or_default();
            let pieces = self.phases[i].shards.pieces_of_sum(&sum_of_own, &took_part[i], device);
            sum.parts[i].gradients = Some(pieces);
        }
        Ok(sum)
    }
}

impl MicroBatch {
    /// Numbers that every process needs: of each phase its terms, its total, and 1 for each
    /// parameter with a gradient; then the changes.
    fn numbers(&self) -> Result<Vec<f64>> {
        let mut numbers = vec![];
        for one in &self.phases {
            numbers.extend(one.losses.terms().iter().map(|(_, value)| value.double_value(&[])));
            numbers.push(one.losses.total().map_or(0.0, |total| total.double_value(&[])));
            numbers.extend(one.gradients.iter().map(|gradient| f64::from(u8::from(gradient.defined()))));
        }
        numbers.extend(self.changes.values()?);
        Ok(numbers)
    }
}

impl Sum {
    /// Adds another process's [`MicroBatch::numbers`]; `own` has the same parts.
    fn add_numbers(&mut self, own: &MicroBatch, numbers: &[f64], took_part: &mut [Vec<bool>]) {
        let mut rest = numbers;
        let mut next = |n: usize| {
            let (first, others) = rest.split_at(n);
            rest = others;
            first
        };
        for one in &own.phases {
            let part = &mut self.parts[one.phase];
            let terms = one.losses.terms();
            let values = terms.iter().zip(next(terms.len()));
            part.terms.extend(values.map(|((name, _), value)| (*name, Tensor::from(*value as f32))));
            part.totals.push(Tensor::from(next(1)[0] as f32));
            let defined = next(one.gradients.len());
            took_part[one.phase].iter_mut().zip(defined).for_each(|(any, one)| *any |= *one > 0.0);
        }
        self.changes.push(own.changes.with_values(rest));
    }
}
