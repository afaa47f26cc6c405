//! What the loop needs to know of a thing to be trained.

use std::path::Path;

use base::Vars;
use data::LeftOut;
use serde::Serialize;
use tch::Tensor;

use crate::recipe::{Intervals, Optimization};
use crate::{Losses, Result};

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
    type Batch;

    /// The phases of a step, in order.
    fn phases(&self) -> &[Phase];

    /// What phase number `phase` trains; as many as there are phases. The first is the model, whose average is
    /// kept.
    fn module(&self, phase: usize) -> Module<'_>;

    /// Steps, batches, optimizer.
    fn optimization(&self) -> &Optimization;

    /// How often to log, validate and save.
    fn intervals(&self) -> Intervals;

    /// Decides all randomness.
    fn seed(&self) -> u64;

    /// The resolved recipe as YAML; itself valid input.
    fn recipe_yaml(&self) -> Result<String>;

    /// The next micro-batch. May wait for data.
    fn batch(&mut self) -> Result<Self::Batch>;

    /// The loss terms of one phase, with their graph. Everything random comes from libtorch's global generator,
    /// which the loop seeds for each (step, micro-batch, phase).
    fn losses(&mut self, batch: &mut Self::Batch, phase: usize, step: u64) -> Result<Losses>;

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
pub(crate) type Gradients = Vec<Tensor>;
