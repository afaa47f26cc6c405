//! What all training verbs take.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::DeviceArgs;

/// A number above 0.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(n) if n > 0.0 && f64::is_finite(n) => Ok(n),
        _ => Err("expected a number above 0".into()),
    }
}

/// A run: its recipe, where it is kept, and what it computes on.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The recipe, as in `configs/train/` [default: a built-in one for 64×64 images]
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub recipe: Option<PathBuf>,

    /// The run's directory: log, saved states, and the model, usable at any time
    #[arg(short, long, value_name = "DIR", required_unless_present = "plan")]
    pub output: Option<PathBuf>,

    /// Go on with the run in --output from its last saved state, with its own recipe
    #[arg(long)]
    pub resume: bool,

    /// Begin with the weights of this checkpoint or model's directory, and all else as new: step 0, fresh optimizer
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "resume")]
    pub init_from: Option<PathBuf>,

    /// Begin a new run in --output where another one was: weights, optimizer, averages, step, place in the data, and
    /// its recipe. A run (its newest state), or a file of its `state/`
    #[arg(long, value_name = "RUN|FILE", conflicts_with_all = ["resume", "recipe", "init_from"])]
    pub fork: Option<PathBuf>,

    /// Print what the run would cost, in arithmetic, time and memory, and end. Needs no data and no weights; with --data
    /// of images it also measures how fast a core decodes them
    #[arg(long)]
    pub plan: bool,

    /// Training images: a folder, tar shards or a list
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    pub data: Option<PathBuf>,

    /// Held-out images of the same kinds
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    pub validation: Option<PathBuf>,

    /// Seed of all randomness [default: the recipe's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Peak of the device in TFLOP/s, of which MFU is a share [default: that of a matrix product at the start]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub peak_tflops: Option<f64>,

    /// Changes to the recipe, such as `optimization.steps=5000`
    #[arg(value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    #[command(flatten)]
    pub device: DeviceArgs,
}

impl RunArgs {
    /// The run's directory; with `--plan` alone there is none.
    pub fn output(&self) -> &Path {
        self.output.as_deref().unwrap_or(Path::new(""))
    }
}
