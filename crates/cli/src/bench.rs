//! `gen bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use settings::{GpuOptions, Precision};

use crate::DeviceArgs;

/// Arguments of `gen bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Workloads to time
    #[arg(
        long,
        value_enum,
        value_name = "WORK",
        value_delimiter = ',',
        default_value = "sample,encode,decode"
    )]
    pub work: Vec<Work>,

    /// Dtypes of the weights; combinations that a workload does not support are skipped
    #[arg(long, value_name = "DTYPE", value_delimiter = ',', default_value = "fp32,bf16,int8")]
    pub precision: Vec<Precision>,

    /// Batch sizes
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,4,16",
          value_parser = clap::value_parser!(i64).range(1..))]
    pub batch_size: Vec<i64>,

    /// Guidance scales; 1 disables guidance
    #[arg(long, value_name = "SCALE", value_delimiter = ',', default_value = "1.75,1")]
    pub cfg: Vec<f64>,

    /// Training on the CPU: number of micro-batches processed in parallel, each on a share of
    /// --threads
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1",
          value_parser = clap::value_parser!(i64).range(1..))]
    pub workers: Vec<i64>,

    /// On a CUDA device: sample with a CUDA graph, like `gen sample --cuda-graph`
    #[arg(long)]
    pub cuda_graph: bool,

    #[command(flatten)]
    pub gpu: GpuOptions,

    /// Number of timed runs after a warm-up; the fastest counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,

    /// Model: a directory, the name of a bundled model, or a config, for random weights [default:
    /// the bundled model]
    #[arg(long, value_name = "DIR|CONFIG|NAME", help_heading = "Model")]
    pub model: Option<String>,

    /// Tokenizer, likewise [default: the one in the model directory]
    #[arg(long, value_name = "DIR|CONFIG|NAME", help_heading = "Model")]
    pub tokenizer: Option<String>,

    /// Compare with an earlier run: a file whose last line is its JSON
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,

    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Workload of `gen bench`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Classes → codes
    Sample,
    /// Images → codes
    Encode,
    /// Codes → images
    Decode,
    /// A training step of the transformer
    Train,
    /// Images in memory → Inception and the statistics of FID (fp32)
    Eval,
}
