//! `gen sample`.

use std::path::PathBuf;

use choices::Precision;
use clap::{ArgGroup, Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{BatchArgs, DeviceArgs, GpuArgs, JsonArgs, ModelArgs, PairedTokenizerArgs, SeedArgs};

/// Arguments of `gen sample`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["class", "prompt", "prompts", "num_images", "from"]).multiple(true).required(true))]
pub struct SampleArgs {
    /// Classes: index, WordNet id or name, lists and ranges (207, n02099601, "golden retriever", 0-9,360)
    #[arg(long, value_name = "CLASS", num_args = 1..)]
    pub class: Vec<String>,

    /// A text that says what to draw; may be repeated
    #[arg(long, value_name = "TEXT", conflicts_with = "class")]
    pub prompt: Vec<String>,

    /// A file of prompts: one a line, a table with a column `Prompt` (PartiPrompts), or JSON lines
    #[arg(long, value_name = "FILE", conflicts_with = "class")]
    pub prompts: Option<PathBuf>,

    /// With prompts: what the images are to be unlike, in place of the model's own null condition
    #[arg(long, value_name = "TEXT", conflicts_with = "class")]
    pub negative_prompt: Option<String>,

    /// With prompts: the text encoder's folder (FLAN-T5 in Hugging Face's layout) [default: the model's own]
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    pub text_encoder: Option<PathBuf>,

    /// Images of each class or prompt [default: 4 of a class, 1 of a prompt]
    #[arg(long, value_name = "N", conflicts_with = "num_images", value_parser = clap::value_parser!(u64).range(1..))]
    pub num: Option<u64>,

    #[command(flatten)]
    pub draw: DrawArgs,

    /// Make the image of this PNG again, with the settings stored in it
    #[arg(long, value_name = "PNG", conflicts_with_all = ["class", "prompt", "prompts",
        "negative_prompt", "num", "num_images", "npz", "size", "seed", "rng", "speculative",
        "cfg", "cfg_schedule", "cfg_start", "cfg_end", "cfg_interval", "temperature", "top_k", "top_p", "min_p",
        "batch_size", "precision", "tokenizer_precision"])]
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

    /// Where randomness comes from [default: image; with --speculative: gumbel]
    #[arg(long, value_enum, help_heading = "Sampling")]
    pub rng: Option<Rng>,

    /// Guess codes and check up to K of them in one pass of the transformer: the images of --rng gumbel, sooner where
    /// they are made one by one
    #[arg(long, value_name = "K", help_heading = "Sampling", value_parser = clap::value_parser!(u64).range(2..=4096))]
    pub speculative: Option<u64>,

    #[command(flatten)]
    pub seed: SeedArgs,
    #[command(flatten)]
    pub batch: BatchArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub tokenizer: PairedTokenizerArgs,
    #[command(flatten)]
    pub compute: DecodingArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Where and how to compute.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub struct DecodingArgs {
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Kind of the transformer's weights: fp32, bf16, fp16, or int8 (the fastest for few images). A text encoder
    /// computes in bf16 beside bf16, else in fp32: T5 leaves the range of fp16
    #[arg(long, value_name = "KIND", default_value_t)]
    pub precision: Precision,

    /// Kind of the tokenizer's weights and activations: fp32, bf16 or fp16
    #[arg(long, value_name = "KIND", default_value_t, value_parser = crate::floating)]
    pub tokenizer_precision: Precision,

    /// On a CUDA device: record the kernels of one step and replay them for every code, which saves small models most
    /// of their time; with --rng image
    #[arg(long, conflicts_with_all = ["speculative", "rng"])]
    pub cuda_graph: bool,

    #[command(flatten)]
    pub gpu: GpuArgs,
}

/// How many images of which classes or prompts.
#[derive(Debug, Clone, Args)]
pub struct DrawArgs {
    /// This many images of random classes (of all the model knows, or of those named), as for a published FID, or of
    /// random prompts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub num_images: Option<u64>,

    /// With --num-images: every class or prompt equally often instead of at random
    #[arg(long, requires = "num_images")]
    pub balanced: bool,
}

/// How codes are drawn. Without a flag: what the model's `sampling.yaml` says, else the published setting.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Guidance scale; 1 is none [published: 2.0; of prompts 7.5]
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

    /// Only the K best codes; 0 is all, 1 takes the best without chance [published: 0; of prompts 1000]
    #[arg(long, value_name = "K", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(0..))]
    pub top_k: Option<i64>,

    /// Only the best codes that together exceed P; 1 is all [published: 1]
    #[arg(long, value_name = "P")]
    pub top_p: Option<f64>,

    /// Only codes at least P times as probable as the best; 0 is all [published: 0]
    #[arg(long, value_name = "P")]
    pub min_p: Option<f64>,
}

/// Where a run's randomness came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Rng {
    /// A stream of each image's own, from (seed, index): the same image at any batch size
    #[default]
    Image,
    /// As image, but with a number for every code that could be drawn (Gumbel-max); what --speculative draws
    Gumbel,
    /// libtorch's global generator, one draw per step for the whole batch, as the official scripts do
    Torch,
}
