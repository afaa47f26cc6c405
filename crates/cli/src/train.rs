//! Arguments common to all training verbs.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::DeviceArgs;

/// Parses a number above 0.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(n) if n > 0.0 && f64::is_finite(n) => Ok(n),
        _ => Err("expected a number above 0".into()),
    }
}

/// When a run in the output directory is resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Resume {
    /// There must be a checkpoint
    Always,
    /// If there is a checkpoint
    Auto,
}

/// A run: recipe, directories, data and device.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Recipe, as in `configs/train/` [default: a built-in one for 64×64 images]
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,

    /// Run directory, with log, checkpoints, and the current model
    #[arg(short, long, value_name = "DIR", required_unless_present = "plan")]
    pub output: Option<PathBuf>,

    /// Resume the run in --output from its last checkpoint, with its own recipe. `--resume=auto`
    /// starts it if there is no checkpoint, by the same command line
    #[arg(
        long,
        value_name = "auto",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always",
        hide_possible_values = true
    )]
    pub resume: Option<Resume>,

    /// Start from the weights of this checkpoint or model directory, at step 0 with a fresh
    /// optimizer
    #[arg(long, value_name = "DIR|FILE")]
    pub init_from: Option<PathBuf>,

    /// Start a new run in --output from the complete state of another: weights, optimizer,
    /// averages, step, position in the data, and recipe. A run (its newest checkpoint), or a file
    /// in its `state/`
    #[arg(long, value_name = "RUN|FILE", conflicts_with_all = ["recipe", "init_from"])]
    pub fork: Option<PathBuf>,

    /// Print the cost of the run in FLOPs, time and memory, and exit. Needs no data and no weights;
    /// with --data, also measures image decoding speed
    #[arg(long)]
    pub plan: bool,

    /// Training images: a folder, tar shards or a list
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    pub data: Option<PathBuf>,

    /// Held-out images, likewise
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    pub validation: Option<PathBuf>,

    /// Random seed [default: the recipe's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Peak TFLOP/s of the device, for MFU [default: measured by a matrix product at the start]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub peak_tflops: Option<f64>,

    /// Recipe overrides, such as `optimization.steps=5000`
    #[arg(value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    #[command(flatten)]
    pub device: DeviceArgs,
}

impl RunArgs {
    /// Whether the run continues from a checkpoint in its directory, once
    /// [`Resume::Auto`] is decided.
    pub fn resumes(&self) -> bool {
        self.resume == Some(Resume::Always)
    }

    /// The run's directory; empty with `--plan` alone.
    pub fn output(&self) -> &Path {
        self.output.as_deref().unwrap_or(Path::new(""))
    }
}
