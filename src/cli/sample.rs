//! `gen sample`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::{BatchArgs, ComputeArgs, JsonArgs, ModelArgs, PairedTokenizerArgs, SeedArgs};
use crate::commands::sample::provenance::Rng;

/// Arguments of `gen sample`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["class", "num_images", "from"]).multiple(true).required(true))]
pub struct SampleArgs {
    /// Classes: index, WordNet id or name, lists and ranges (207, n02099601, "golden retriever", 0-9,360)
    #[arg(long, value_name = "CLASS", num_args = 1..)]
    pub class: Vec<String>,

    /// Images of each class
    #[arg(long, value_name = "N", default_value_t = 4, conflicts_with = "num_images",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub num: u64,

    #[command(flatten)]
    pub draw: DrawArgs,

    /// Make the image of this PNG again, with the settings stored in it
    #[arg(long, value_name = "PNG", conflicts_with_all = ["class", "num", "num_images", "npz", "size", "seed", "rng",
        "cfg", "cfg_schedule", "cfg_start", "cfg_end", "cfg_interval", "temperature", "top_k", "top_p", "min_p",
        "batch_size", "precision"])]
    pub from: Option<PathBuf>,

    /// Folder for the PNGs and their contact sheet [default: samples, unless --npz is given; with --from:
    /// samples/again]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Write all images into one .npz (arr_0, uint8, N×H×W×3); the same command continues an interrupted run
    #[arg(long, value_name = "FILE")]
    pub npz: Option<PathBuf>,

    /// Side of the images in pixels, by bicubic resize [default: the tokenizer's]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(i64).range(1..=8192))]
    pub size: Option<i64>,

    #[command(flatten)]
    pub sampling: SamplingArgs,

    /// Where randomness comes from
    #[arg(long, value_enum, default_value_t, help_heading = "Sampling")]
    pub rng: Rng,

    #[command(flatten)]
    pub seed: SeedArgs,
    #[command(flatten)]
    pub batch: BatchArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub tokenizer: PairedTokenizerArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

/// How many images of which classes.
#[derive(Debug, Clone, Args)]
pub struct DrawArgs {
    /// This many images of random classes, as for a published FID
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub num_images: Option<u64>,

    /// With --num-images: every class equally often instead of at random
    #[arg(long, requires = "num_images")]
    pub balanced: bool,
}

/// How codes are drawn. Without a flag: what the model's `sampling.yaml` says, else the published setting.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Guidance scale; 1 is none [published: 2.0]
    #[arg(long, value_name = "SCALE")]
    pub cfg: Option<f64>,

    /// constant, linear, linear_re, triangular, rectangular, step, cosine or sigmoid [published: constant]
    #[arg(long, value_name = "NAME")]
    pub cfg_schedule: Option<String>,

    /// Where the window of step (0.18) or rectangular (0.05) starts, as a share of the steps
    #[arg(long, value_name = "SHARE")]
    pub cfg_start: Option<f64>,

    /// Where the window of rectangular (1.0) ends
    #[arg(long, value_name = "SHARE")]
    pub cfg_end: Option<f64>,

    /// The last step after the first code that is guided; -1 is all of them [published: -1]
    #[arg(long, value_name = "STEP", allow_negative_numbers = true)]
    pub cfg_interval: Option<i64>,

    /// Softmax temperature [published: 1]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,

    /// Only the K best codes; 0 is all, 1 takes the best without chance [published: 0]
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub top_k: Option<i64>,

    /// Only the best codes that together exceed P; 1 is all [published: 1]
    #[arg(long, value_name = "P")]
    pub top_p: Option<f64>,

    /// Only codes at least P times as probable as the best; 0 is all [published: 0]
    #[arg(long, value_name = "P")]
    pub min_p: Option<f64>,
}
