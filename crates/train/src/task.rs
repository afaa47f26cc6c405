//! What the loop needs to know of a thing to be trained.

use std::path::{Path, PathBuf};

use base::Vars;
use base::config::to_yaml;
use data::LeftOut;
use serde::Serialize;
use tch::Tensor;
use weights::{KeyMap, Signature};

use crate::recipe::{ImageData, Intervals, Optimization};
use crate::{Losses, Plan, Result};

/// What every recipe has beside its model, data and losses.
#[derive(Debug, Clone, Copy)]
pub struct Common<'a> {
    /// Decides all randomness.
    pub seed: u64,
    /// Steps, batches, optimizer.
    pub optimization: &'a Optimization,
    /// How often to log, validate and save.
    pub every: Intervals,
    /// A checkpoint or a model's directory to begin with.
    pub init_from: Option<&'a Path>,
    /// Parameters of the model that are not trained, by patterns as in [`weights::matches`].
    pub freeze: &'a [String],
}

/// How a checkpoint becomes a task's first weights.
pub struct Adoption {
    /// The file's names → the model's.
    pub map: KeyMap,
    /// Parts that may be other ones than the file's, and are then drawn anew: patterns as in [`weights::matches`].
    pub replaceable: &'static [&'static str],
    /// The released models, for a word on what a file that does not fit looks like.
    pub known: fn() -> Vec<Signature>,
}

/// Everything that decides a run; as YAML it is itself valid input.
pub trait Recipe: Serialize {
    /// The parts that the loop needs.
    fn common(&self) -> Common<'_>;

    /// What the run will cost.
    fn plan(&self) -> Result<Plan>;

    /// Refuses settings that contradict each other.
    ///
    /// # Errors
    /// Says which.
    fn check(&self) -> Result<()> {
        self.common().optimization.check()
    }

    /// The images that it trains on and their side, where they are read in training.
    fn images(&self) -> Option<(&ImageData, i64)> {
        None
    }

    /// Whether it could save memory by `recompute`, and does not yet.
    fn can_recompute(&self) -> bool {
        false
    }

    /// Every file and folder that it names.
    fn paths(&mut self) -> Vec<&mut PathBuf>;
}

/// One optimizer's part of a step: the generator's or the discriminator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Its name in logs and saved states.
    pub name: &'static str,
    /// The first step, counted from 1, that it takes part in.
    pub start: u64,
}

/// Variables of one phase. The first module of a task is the model itself.
#[derive(Debug, Clone, Copy)]
pub struct Module<'a> {
    /// Its name in saved states.
    pub name: &'static str,
    /// Its variables.
    pub vars: &'a Vars,
}

/// What a run was trained on, for its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataFacts {
    /// What was recognised.
    pub description: String,
    /// How many records there are.
    pub records: usize,
    /// A hash that other data do not have: of images the names and labels, of codes also some of the content.
    pub fingerprint: String,
}

/// The losses of a model on its data. The loop owns the order of a step, the task owns what is minimised.
pub trait Task {
    /// One micro-batch, on the device. A phase may leave in it what a later phase of the same step needs.
    type Batch: Send;
    /// What decides the run.
    type Recipe: Recipe;

    /// The resolved recipe.
    fn recipe(&self) -> &Self::Recipe;

    /// The phases of a step, in order.
    fn phases(&self) -> &[Phase];

    /// What phase number `phase` trains; as many as there are phases. The first is the model, whose average is
    /// kept.
    fn module(&self, phase: usize) -> Module<'_>;

    /// Steps, batches, optimizer.
    fn optimization(&self) -> &Optimization {
        self.recipe().common().optimization
    }

    /// The same for one phase, whose learning rate and optimizer may be its own.
    fn optimization_of(&self, _phase: usize) -> Optimization {
        self.optimization().clone()
    }

    /// How often to log, validate and save.
    fn intervals(&self) -> Intervals {
        self.recipe().common().every
    }

    /// Decides all randomness.
    fn seed(&self) -> u64 {
        self.recipe().common().seed
    }

    /// The resolved recipe as YAML.
    fn recipe_yaml(&self) -> Result<String> {
        Ok(to_yaml(self.recipe())?)
    }

    /// How another model's weights become the first ones of this.
    fn adoption(&self) -> Adoption {
        Adoption { map: KeyMap::identity(), replaceable: &[], known: Vec::new }
    }

    /// The next micro-batch. May wait for data.
    fn batch(&mut self) -> Result<Self::Batch>;

    /// The loss terms of one phase, with their graph. Several threads may ask at once, each for a micro-batch of its own.
    /// Everything random comes from [`base::random`], which the loop seeds for each (step, micro-batch, phase), and
    /// buffers change by [`base::carried`] alone: each micro-batch finds them as the step did, and its changes take place
    /// in the order of the micro-batches once the step is made.
    fn losses(&self, batch: &mut Self::Batch, phase: usize, step: u64) -> Result<Losses>;

    /// The losses of a task's only phase together with `scale` times their gradient by `params`, for a task that runs
    /// parts of its model twice rather than keep what they computed; `None` where [`Task::losses`] is to be
    /// differentiated.
    fn recomputed(
        &self,
        _batch: &mut Self::Batch,
        _params: &[Tensor],
        _scale: f64,
    ) -> Result<Option<(Losses, Gradients)>> {
        Ok(None)
    }

    /// Where the data stands, and [`Task::restore`] to continue there.
    fn position(&self) -> Result<String>;

    /// Continues where [`Task::position`] was taken.
    fn restore(&mut self, position: &str) -> Result<()>;

    /// What the training data are. May read some of them.
    fn data(&self) -> Result<DataFacts>;

    /// The files that were left out of the data so far, and why.
    fn left_out(&self) -> Vec<LeftOut>;

    /// Codes of one image, where speed is told in codes.
    fn codes_per_image(&self) -> Option<u64> {
        None
    }

    /// Figures on held-out data with the present weights, by name; empty if there is no such data.
    fn validate(&mut self) -> Result<Vec<(&'static str, f64)>>;

    /// Writes the directory that sampling or encoding opens, but for `weights.safetensors`.
    fn write_model_files(&self, dir: &Path) -> Result<()>;
}

/// A gradient for each parameter of a phase, in the order of its variables.
pub type Gradients = Vec<Tensor>;
