//! `gen eval --benchmark`.

use std::path::PathBuf;

use clap::Args;

/// Reproduction of a published figure.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Published figures")]
pub struct BenchmarkArgs {
    /// Reproduce a published figure: a name in `configs/benchmarks`, or a file. Exit code 1 if the
    /// result is outside the tolerance, 2 if a file is missing
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["images", "reference", "metrics", "features", "num",
        "reconstruct", "partial", "shard", "merge", "report", "model", "tokenizer"], alias = "recipe")]
    pub benchmark: Option<String>,

    /// With --benchmark: folder of checkpoints, reference files and network weights; repeatable
    /// [default: the current folder]
    #[arg(long, value_name = "DIR", requires = "benchmark", alias = "pieces")]
    pub artifacts: Vec<PathBuf>,

    /// With --benchmark: held-out images, if needed
    #[arg(long, value_name = "PATH", requires = "benchmark")]
    pub data: Option<PathBuf>,

    /// With --benchmark: training images, for linear probes
    #[arg(long, value_name = "PATH", requires = "benchmark")]
    pub train_data: Option<PathBuf>,

    /// With --benchmark: folder of the run; run the same command again to resume [default:
    /// `benchmarks/NAME`]
    #[arg(long, value_name = "DIR", requires = "benchmark")]
    pub work: Option<PathBuf>,

    /// With --benchmark: dry run on N images, whose figures are not comparable
    #[arg(long, value_name = "N", requires = "benchmark", value_parser = clap::value_parser!(u64).range(2..))]
    pub limit: Option<u64>,

    /// With --benchmark: search for the guidance scale like the official script
    #[arg(long, requires = "benchmark")]
    pub search: bool,
}
