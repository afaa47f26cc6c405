//! Saving and loading the trainer's state.

use base::config::to_yaml;
use tch::Tensor;

use super::Trainer;
use crate::Result;
use crate::checkpoint::{self, CheckpointMeta, TrainCheckpoint};
use crate::recipe::{CommonKeys as _, Intervals};
use crate::retention::RetentionPolicy;
use crate::task::{Task, TrainingData as _};

impl Trainer<'_> {
    /// Saves the state and the model, in the first process.
    pub(super) fn save(&mut self, task: &impl Task) -> Result<()> {
        self.world().note(&format!("saving step {}", self.step));
        self.count_time();
        let tensors = self.tensors(task)?;
        if self.world().is_first() {
            let (position, recipe) = (task.data().position()?, to_yaml(task.recipe())?);
            let meta = CheckpointMeta {
                step: self.step,
                position: &position,
                recipe: &recipe,
                program: self.run.program,
                stats: self.stats,
            };
            let Intervals { keep, milestone, .. } = task.recipe().common().every;
            let policy = RetentionPolicy { newest: keep, milestone };
            checkpoint::save(self.run.dir, &meta, &tensors, policy)?;
        }
        self.save_weights(task)
    }

    /// Saves the kept weights as `weights.safetensors`, in the first process.
    pub(super) fn save_weights(&mut self, task: &impl Task) -> Result<()> {
        let (step, path) = (self.step, self.run.dir.join("weights.safetensors"));
        let vars = task.module(0).vars.clone();
        let first = self.world().is_first();
        self.with_kept_weights(|| {
            if !first {
                return Ok(());
            }
            let tensors: Vec<(String, Tensor)> =
                vars.all().into_iter().map(|v| (v.name, v.tensor.detach())).collect();
            let metadata = [("step".to_owned(), step.to_string())].into();
            Ok(weights::save_safetensors(&path, &tensors, &metadata)?)
        })
    }

    /// All tensors of a state: those of the live run, or assembled from the processes' pieces.
    fn tensors(&self, task: &impl Task) -> Result<Vec<(String, Tensor)>> {
        let (mut all, world) = (Vec::new(), self.world());
        for (i, phase) in self.phases.iter().enumerate() {
            let module = task.module(i);
            let vars = module.vars.all().into_iter();
            all.extend(vars.map(|v| (format!("{}/{}", module.name, v.name), v.tensor.detach())));
            let [first, second] = phase.optimizer.moments();
            let first = phase.shards.assemble(&first, world)?;
            let second = phase.shards.assemble(&second, world)?;
            let steps = phase.shards.assemble_numbers(&phase.optimizer.steps(), world)?;
            let moments = first.into_iter().zip(second).zip(steps);
            for (name, ((first, second), step)) in phase.names.iter().zip(moments) {
                let named = |part: &str| format!("optimizer.{}/{part}.{name}", phase.phase.name);
                all.push((named("exp_avg"), first));
                all.push((named("exp_avg_sq"), second));
                all.push((named("step"), Tensor::from(step)));
            }
        }
        if let Some(ema) = &self.ema {
            let averages = self.phases[0].shards.assemble(&ema.averages(), world)?;
            all.extend(self.phases[0].names.iter().zip(averages).map(|(n, t)| (format!("ema/{n}"), t)));
        }
        Ok(all)
    }

    /// Restores everything from a saved state.
    pub(super) fn load(&mut self, task: &mut impl Task, saved: &TrainCheckpoint) -> Result<()> {
        let mismatch = |prefix: &str, name: String| saved.mismatch(&format!("`{prefix}/{name}`"));
        for (i, phase) in self.phases.iter_mut().enumerate() {
            let module = task.module(i);
            for v in module.vars.all() {
                let found = saved.tensor(&format!("{}/{}", module.name, v.name));
                let found = found.filter(|t| t.size() == v.tensor.size());
                let found = found
                    .ok_or_else(|| mismatch(module.name, format!("{} {:?}", v.name, v.tensor.size())))?;
                tch::no_grad(|| v.tensor.detach().copy_(&found));
            }
            let prefix = format!("optimizer.{}", phase.phase.name);
            let get = |name: &str| {
                let whole = saved.tensor(&format!("{prefix}/{name}"))?;
                match name.split_once('.') {
                    Some(("exp_avg" | "exp_avg_sq", name)) => phase.shards.piece_of(name, &whole),
                    _ => Some(whole),
                }
            };
            phase.optimizer.load_state(get).map_err(|name| mismatch(&prefix, name))?;
        }
        if let Some(ema) = &mut self.ema {
            let shards = &self.phases[0].shards;
            ema.load_state(|name| shards.piece_of(name, &saved.tensor(&format!("ema/{name}"))?))
                .map_err(|name| mismatch("ema", name))?;
        }
        task.data_mut().restore(&saved.position)?;
        (self.step, self.stats) = (saved.step, saved.stats);
        Ok(())
    }
}
