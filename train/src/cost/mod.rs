//! Cost of a run before it starts: parameters, arithmetic, time and memory.

pub(crate) mod frozen;

use base::Precision;

use crate::recipe::Optimization;

/// FLOP/s that one H200 is assumed to sustain in training: half of what its matrix products reach.
const H200: f64 = 395e12;
const GIB: f64 = (1u64 << 30) as f64;

/// Cost of a run. A multiplication and an addition are two operations.
#[derive(Debug, Clone)]
pub struct RunCost {
    /// Parameters of the trained model, frozen parts included.
    pub parameters: f64,
    /// Operations of a step for one image: forward, backward, losses.
    pub flops_per_image: f64,
    /// Positions of one image, for a transformer.
    pub positions: Option<f64>,
    /// Bytes held during the whole run: weights, gradients, moments, averages, frozen networks.
    pub states: Vec<(&'static str, f64)>,
    /// Bytes of activations that one image of a micro-batch keeps for the backward pass.
    pub activations_per_image: f64,
    /// Further bytes during a step, independent of the batch.
    pub workspace: f64,
    /// Parts of the run that are not counted.
    pub uncounted: Vec<&'static str>,
    steps: u64,
    batch: usize,
    micro_batches: usize,
    workers: usize,
}

/// Memory of a trained network: fp32 weights, a gradient, two moments, and an average if the recipe
/// has one.
pub(crate) fn states(parameters: f64, optimization: &Optimization) -> Vec<(&'static str, f64)> {
    let mut all = vec![
        ("weights, fp32", 4.0 * parameters),
        ("gradients", 4.0 * parameters),
        ("optimizer state", 8.0 * parameters),
    ];
    all.extend(optimization.ema.map(|_| ("moving average", 4.0 * parameters)));
    all
}

/// Bytes of an activation.
pub(crate) fn element_bytes(precision: Precision) -> f64 {
    if precision == Precision::Fp32 { 4.0 } else { 2.0 }
}

impl RunCost {
    pub(crate) fn new(parameters: f64, optimization: &Optimization) -> Self {
        RunCost {
            parameters,
            flops_per_image: 0.0,
            positions: None,
            states: states(parameters, optimization),
            activations_per_image: 0.0,
            workspace: 0.0,
            uncounted: vec![],
            steps: optimization.steps,
            batch: optimization.batch_size,
            micro_batches: optimization.micro_batches,
            workers: optimization.workers,
        }
    }

    /// Operations of the whole run.
    pub fn flops(&self) -> f64 {
        self.flops_per_image * self.batch as f64 * self.steps as f64
    }

    /// Hours on one H200.
    pub fn h200_hours(&self) -> f64 {
        self.flops() / H200 / 3600.0
    }

    /// Images a second on one H200.
    pub fn h200_images_per_second(&self) -> f64 {
        H200 / self.flops_per_image
    }

    /// Peak bytes of a step, for a batch in `micro_batches` parts.
    fn bytes_in(&self, micro_batches: usize) -> f64 {
        let states: f64 = self.states.iter().map(|s| s.1).sum();
        let images = self.batch.div_ceil(micro_batches) as f64;
        states
            + (self.activations_per_image * images + self.workspace) * self.workers as f64
            + self.worker_gradients()
    }

    /// Gradients of each worker but one, until they are added to the sum.
    fn worker_gradients(&self) -> f64 {
        4.0 * self.parameters * (self.workers - 1) as f64
    }

    /// Images computed at a time.
    fn at_once(&self) -> usize {
        self.batch.div_ceil(self.micro_batches) * self.workers
    }

    /// Peak bytes of a step.
    pub fn bytes(&self) -> f64 {
        self.bytes_in(self.micro_batches)
    }

    /// Smallest number of micro-batches with which the run fits into `bytes`; `None` if none does.
    pub fn micro_batches_for(&self, bytes: f64) -> Option<usize> {
        (1..=self.batch).find(|n| self.batch.is_multiple_of(*n) && self.bytes_in(*n) <= bytes)
    }

    /// Memory of the run in one line.
    pub fn memory_line(&self, available: Option<u64>) -> String {
        let states: f64 = self.states.iter().map(|s| s.1).sum();
        let of = available.map_or(String::new(), |a| format!("; {:.1} GiB are free", a as f64 / GIB));
        format!(
            "memory: about {:.1} GiB, of which {:.1} for weights and optimizer, {:.1} for activations of {} images{of}",
            self.bytes() / GIB,
            states / GIB,
            (self.bytes() - states) / GIB,
            self.at_once()
        )
    }

    /// Lines of `--plan`, as name and value.
    pub fn lines(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = vec![];
        let mut line = |name: &str, value: String| all.push((name.to_owned(), value));
        let per_image = self.flops_per_image / 1e9;
        line("parameters", format!("{:.1} M", self.parameters / 1e6));
        let at_once = self.at_once();
        line("step", format!("{} images, {at_once} at a time", self.batch));
        line("steps", format!("{}, {:.1} M images", self.steps, self.steps as f64 * self.batch as f64 / 1e6));
        if let Some(positions) = self.positions {
            line("arithmetic, a position", format!("{:.2} GFLOP", per_image / positions));
        }
        line("arithmetic, an image", format!("{per_image:.0} GFLOP"));
        line("arithmetic, the run", format!("{:.3e} FLOP", self.flops()));
        line(
            "one H200, 395 TFLOP/s",
            format!("{:.0} h, {:.0} images/s", self.h200_hours(), self.h200_images_per_second()),
        );
        for (name, bytes) in &self.states {
            line(&format!("memory, {name}"), gib(*bytes));
        }
        line("memory, activations", gib(self.activations_per_image * at_once as f64));
        if self.workers > 1 {
            line("memory, workers' gradients", gib(self.worker_gradients()));
        }
        line("memory, working", gib(self.workspace * self.workers as f64));
        line("memory, in all", gib(self.bytes()));
        for part in &self.uncounted {
            line("not counted", (*part).to_owned());
        }
        all
    }
}

fn gib(bytes: f64) -> String {
    format!("{:.2} GiB", bytes / GIB)
}
