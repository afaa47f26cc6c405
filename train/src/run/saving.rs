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
    /// Saves the state and the model.
    pub(super) fn save(&mut self, task: &impl Task) -> Result<()> {
        self.count_time();
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
        checkpoint::save(self.run.dir, &meta, &self.tensors(task), policy)?;
        self.save_weights(task)
    }

    /// Saves the kept weights as `weights.safetensors`.
    pub(super) fn save_weights(&mut self, task: &impl Task) -> Result<()> {
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

    /// All tensors of a state, shared with the live run.
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
            let get = |name: &str| saved.tensor(&format!("{prefix}/{name}"));
            phase.optimizer.load_state(get).map_err(|name| mismatch(&prefix, name))?;
        }
        if let Some(ema) = &mut self.ema {
            ema.load_state(|name| saved.tensor(&format!("ema/{name}")))
                .map_err(|name| mismatch("ema", name))?;
        }
        task.data_mut().restore(&saved.position)?;
        (self.step, self.stats) = (saved.step, saved.stats);
        Ok(())
    }
}
