//! Interface between the training loop and a thing to be trained.

use std::path::Path;

use base::Vars;
use data::{LeftOut, Partition};
use serde::Serialize;
use tch::Tensor;
use weights::{KeyMap, Signature};

use crate::recipe::{CommonKeys as _, Optimization, Recipe};
use crate::share::Share;
use crate::{Losses, Result};

/// Rules for loading a pretrained checkpoint into a task's model.
pub struct InitPolicy {
    /// Map from the file's names to the model's.
    pub map: KeyMap,
    /// Parts that may differ from the file's and are then initialised anew: patterns as in
    /// [`weights::matches`].
    pub reinit_allowed: &'static [&'static str],
    /// Signatures of the released models, to name the one that a file which does not fit resembles.
    pub known: fn() -> Vec<Signature>,
}

/// One optimizer's part of a step: the generator's or the discriminator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Name in logs and saved states.
    pub name: &'static str,
    /// First step that it takes part in, counted from 1.
    pub start: u64,
}

/// Variables of one phase. The first module of a task is the model itself.
#[derive(Debug, Clone, Copy)]
pub struct Module<'a> {
    /// Name in saved states.
    pub name: &'static str,
    /// Its variables.
    pub vars: &'a Vars,
}

/// Identity of the training data, for `run.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataFacts {
    /// Recognised form and size.
    pub description: String,
    /// Number of records.
    pub records: usize,
    /// Hash of the images' names and labels; for stored codes also of part of the content.
    pub fingerprint: String,
}

/// Training data with a position that a saved state holds.
pub trait TrainingData {
    /// One micro-batch as the data has it, on the CPU.
    type Batch;

    /// The next micro-batch. May wait for data.
    ///
    /// # Errors
    /// Returns an error if records cannot be read or the data ended.
    fn next(&mut self) -> Result<Self::Batch>;

    /// Makes this process one of several, each of which reads every R-th micro-batch, and every R-th
    /// held-out batch. The position is then that of the first process's next micro-batch.
    fn share(&mut self, partition: Partition);

    /// The position in the data, for [`TrainingData::restore`].
    ///
    /// # Errors
    /// Returns an error if the position cannot be written as text.
    fn position(&self) -> Result<String>;

    /// Continues at a position that [`TrainingData::position`] returned.
    ///
    /// # Errors
    /// Returns an error if `position` is damaged or beyond the data.
    fn restore(&mut self, position: &str) -> Result<()>;

    /// Identity of the data. May read some of them.
    ///
    /// # Errors
    /// Returns an error if the data cannot be read.
    fn facts(&self) -> Result<DataFacts>;

    /// Files skipped so far, held-out ones included, with the reason.
    fn skipped(&self) -> Vec<LeftOut>;
}

/// Losses of a model on its data. The loop owns the order of a step, the task the objective.
pub trait Task {
    /// One micro-batch, on the device. A phase may leave in it what a later phase of the same step
    /// needs.
    type Batch: Send;
    /// Settings of the run.
    type Recipe: Recipe;
    /// Training data.
    type Data: TrainingData;

    /// The resolved recipe.
    fn recipe(&self) -> &Self::Recipe;

    /// The training data.
    fn data(&self) -> &Self::Data;

    /// The training data, to read on or to restore a position.
    fn data_mut(&mut self) -> &mut Self::Data;

    /// The phases of a step, in order.
    fn phases(&self) -> &[Phase];

    /// Variables that phase number `phase` trains. The first module is the model, whose average is
    /// kept.
    fn module(&self, phase: usize) -> Module<'_>;

    /// Steps, batches, optimizer.
    fn optimization(&self) -> &Optimization {
        self.recipe().common().optimization
    }

    /// Steps, batches and optimizer of one phase, whose learning rate and betas may differ.
    fn optimization_of(&self, _phase: usize) -> Optimization {
        self.optimization().clone()
    }

    /// Seed of everything random.
    fn seed(&self) -> u64 {
        self.recipe().common().seed
    }

    /// Rules for loading another model's weights.
    fn init_policy(&self) -> InitPolicy {
        InitPolicy { map: KeyMap::identity(), reinit_allowed: &[], known: Vec::new }
    }

    /// Moves a micro-batch to the device in the form that the losses take.
    ///
    /// # Errors
    /// Returns an error if a record lacks what the model needs, such as a class or a caption.
    fn prepare(&self, batch: <Self::Data as TrainingData>::Batch) -> Result<Self::Batch>;

    /// The next micro-batch, on the device.
    ///
    /// # Errors
    /// Same as [`TrainingData::next`] and [`Task::prepare`].
    fn batch(&mut self) -> Result<Self::Batch> {
        let batch = self.data_mut().next()?;
        self.prepare(batch)
    }

    /// Loss terms of one phase, with their graph. Several threads may ask at once, each for its own
    /// micro-batch. Everything random comes from [`base::random`], which the loop seeds for each
    /// (step, micro-batch, phase), and buffers change by [`base::carried`] alone: each micro-batch
    /// finds them as the step did, and its changes take place in the order of the micro-batches
    /// after the step.
    ///
    /// # Errors
    /// Returns an error if a network rejects the batch.
    fn losses(&self, batch: &mut Self::Batch, phase: usize, step: u64) -> Result<Losses>;

    /// Losses of a task's only phase together with `scale` times their gradient by `params`, for a
    /// task that recomputes activations in the backward pass; `None` where [`Task::losses`] is to
    /// be differentiated.
    ///
    /// # Errors
    /// Same as [`Task::losses`].
    fn recomputed(
        &self,
        _batch: &mut Self::Batch,
        _params: &[Tensor],
        _scale: f64,
    ) -> Result<Option<(Losses, Gradients)>> {
        Ok(None)
    }

    /// Codes of one image, for a task whose speed is also logged in codes a second.
    fn codes_per_image(&self) -> Option<u64> {
        None
    }

    /// Metrics on held-out data with the present weights, by name, the same in all processes that
    /// share it; empty without such data.
    ///
    /// # Errors
    /// Returns an error if the held-out data cannot be read, or another process fails.
    fn validate(&mut self, share: Share<'_>) -> Result<Vec<(&'static str, f64)>>;

    /// Writes the files of a model directory except `weights.safetensors`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    fn write_model_files(&self, dir: &Path) -> Result<()>;
}

/// A gradient for each parameter of a phase, in the order of its variables.
pub type Gradients = Vec<Tensor>;
