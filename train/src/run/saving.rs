//! Saving and loading the trainer's state.

use base::config::to_yaml;
use tch::Tensor;

use super::Trainer;
use crate::Result;
use crate::checkpoint::{self, CheckpointMeta, StateTensors, TrainCheckpoint};
use crate::recipe::{CommonKeys as _, Intervals};
use crate::retention::RetentionPolicy;
use crate::shards::Shards;
use crate::task::{Task, TrainingData as _};

impl StateTensors {
    /// Adds pieces of tensors that are named like the parameters, after `prefix`.
    fn add_pieces(&mut self, shards: &Shards, prefix: &str, pieces: Vec<Tensor>) {
        for ((name, slice), piece) in shards.slices().zip(pieces) {
            let name = format!("{prefix}{name}");
            if let Some(slice) = slice {
                self.slices.insert(name.clone(), slice);
            }
            self.tensors.push((name, piece));
        }
    }
}

impl Trainer<'_> {
    /// Saves the state, and the model in the first process.
    pub(super) fn save(&mut self, task: &impl Task) -> Result<()> {
        self.world().note(&format!("saving step {}", self.step));
        self.count_time();
        let state = self.state(task)?;
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
        checkpoint::save(self.run.dir, &meta, &state, policy, self.world())?;
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

    /// This process's tensors of a state, shared with the live run: its pieces of parameters,
    /// moments and averages. The first process has everything else.
    fn state(&self, task: &impl Task) -> Result<StateTensors> {
        let mut state = StateTensors::default();
        let (world, first) = (self.world(), self.world().is_first());
        for (i, phase) in self.phases.iter().enumerate() {
            let module = task.module(i);
            let params = phase.shards.views_of(&phase.params);
            state.add_pieces(&phase.shards, &format!("{}/", module.name), params);
            let others = module.vars.all().into_iter().filter(|v| first && !phase.names.contains(&v.name));
            let others = others.map(|v| (format!("{}/{}", module.name, v.name), v.tensor.detach()));
            state.tensors.extend(others);
            let prefix = format!("optimizer.{}", phase.phase.name);
            let [exp_avg, exp_avg_sq] = phase.optimizer.moments();
            state.add_pieces(&phase.shards, &format!("{prefix}/exp_avg."), exp_avg);
            state.add_pieces(&phase.shards, &format!("{prefix}/exp_avg_sq."), exp_avg_sq);
            let steps = phase.shards.assemble_numbers(&phase.optimizer.steps(), world)?;
            let steps = phase.names.iter().zip(steps).filter(|_| first);
            state.tensors.extend(steps.map(|(name, n)| (format!("{prefix}/step.{name}"), Tensor::from(n))));
        }
        if let Some(ema) = &self.ema {
            state.add_pieces(&self.phases[0].shards, "ema/", ema.averages());
        }
        Ok(state)
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
