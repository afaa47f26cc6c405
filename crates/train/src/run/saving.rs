//! What of a run is saved, and taken up again.

use tch::Tensor;

use super::Trainer;
use crate::Result;
use crate::recipe::Intervals;
use crate::state::{self, Keep, Moment, Saved};
use crate::task::Task;

impl Trainer<'_> {
    /// The state and the model.
    pub(super) fn save(&mut self, task: &impl Task) -> Result<()> {
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

    /// Takes over everything of a saved state.
    pub(super) fn load(&mut self, task: &mut impl Task, saved: &Saved) -> Result<()> {
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
