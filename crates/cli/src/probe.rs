//! `gen probe`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::{ComputeArgs, JsonArgs, ModelArgs, PairedTokenizerArgs, SeedArgs};

/// Trains a linear classifier on frozen features and reports its accuracy on held-out images
/// (GigaTok's "Acc.", after MAE). Probes a transformer, or with --tokenizer and no --model, that
/// tokenizer. Run the same command again to resume.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// Labelled training images: class folders, tar shards or a pattern of them, a .jsonl or .csv
    /// list
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,

    /// Labelled held-out images, in the same forms
    #[arg(long, value_name = "PATH")]
    pub validation: PathBuf,

    /// Run directory
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    /// Folder of cached features, which several runs can share [default: `features` in --output]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,

    /// Cache the features of N fixed views of each training image. Faster, but deviates from the
    /// protocol, which draws new crops in every epoch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub cache_views: Option<u16>,

    /// Maximum number of unreadable images to skip per data set
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub max_corrupt: usize,

    /// Use only N images of each data set, evenly spaced
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,

    #[command(flatten)]
    pub features: FeatureArgs,
    #[command(flatten)]
    pub head: HeadArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub tokenizer: PairedTokenizerArgs,
    #[command(flatten)]
    pub seed: SeedArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Probed features.
#[derive(Debug, Args)]
#[command(next_help_heading = "Features")]
pub struct FeatureArgs {
    /// Transformer: layer whose output is probed, from 1 [default: half of the layers]
    #[arg(long, value_name = "N")]
    pub layer: Option<usize>,

    /// Transformer: dropout on training images, as in the official code [default: on]
    #[arg(long, value_name = "ON|OFF")]
    pub probe_dropout: Option<Switch>,

    /// Tokenizer: probe the encoder's output projection instead of its final norm
    #[arg(long, conflicts_with = "model")]
    pub fix_dim: bool,

    /// Tokenizer: probe the decoder layer that was aligned with a teacher
    #[arg(long, conflicts_with_all = ["model", "fix_dim"])]
    pub from_decoder: bool,

    /// Layer norm on each position before the mean over positions (iGPT)
    #[arg(long, value_name = "NORM", default_value = "none")]
    pub feature_norm: FeatureNormArg,
}

/// Training of the head.
#[derive(Debug, Args)]
#[command(next_help_heading = "Head")]
pub struct HeadArgs {
    /// Batch norm before the linear layer
    #[arg(long, value_name = "ON|OFF", default_value = "on")]
    pub head_bn: Switch,

    /// Optimizer; both use momentum 0.9 and no weight decay
    #[arg(long, value_name = "NAME", default_value = "lars")]
    pub optimizer: OptimizerArg,

    /// Learning rate per 256 images
    #[arg(long, value_name = "LR", default_value_t = 0.1)]
    pub base_lr: f64,

    /// Passes over the training images
    #[arg(long, value_name = "N", default_value_t = 90)]
    pub epochs: u64,

    /// Epochs of linear warm-up
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub warmup_epochs: u64,

    /// Batch size, over which batch-norm statistics are computed
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(i64).range(1..))]
    pub batch_size: i64,

    /// Batches per step (in the official code: processes)
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub accumulate: usize,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

/// Normalisation of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FeatureNormArg {
    /// Nothing
    None,
    /// Layer norm
    Ln,
}

/// Optimizers of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OptimizerArg {
    /// Layer-wise scaled
    Lars,
    /// Plain
    Sgd,
}
