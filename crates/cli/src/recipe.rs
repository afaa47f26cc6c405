//! `gen eval --recipe`.

use std::path::PathBuf;

use clap::Args;

/// A published figure, measured again.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Published figures")]
pub struct RecipeArgs {
    /// Measure a published figure again: a name in `configs/benchmarks`, or a file of that kind. Exit code 1 if it comes
    /// out otherwise, 2 if something is missing
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["images", "reference", "metrics", "features", "num",
        "reconstruct", "partial", "shard", "merge", "report", "model", "tokenizer"])]
    pub recipe: Option<String>,

    /// With --recipe: a folder of checkpoints, reference files and network weights; may be given several times
    /// [default: the current folder]
    #[arg(long, value_name = "DIR", requires = "recipe")]
    pub pieces: Vec<PathBuf>,

    /// With --recipe: held-out images, where the recipe needs them
    #[arg(long, value_name = "PATH", requires = "recipe")]
    pub data: Option<PathBuf>,

    /// With --recipe: training images, for linear probes
    #[arg(long, value_name = "PATH", requires = "recipe")]
    pub train_data: Option<PathBuf>,

    /// With --recipe: the run's folder; the same command goes on there [default: `benchmarks/NAME`]
    #[arg(long, value_name = "DIR", requires = "recipe")]
    pub work: Option<PathBuf>,

    /// With --recipe: a dry run on so many images; its figures are not comparable
    #[arg(long, value_name = "N", requires = "recipe", value_parser = clap::value_parser!(u64).range(2..))]
    pub limit: Option<u64>,

    /// With --recipe: search the guidance scale as the official script does
    #[arg(long, requires = "recipe")]
    pub search: bool,
}
