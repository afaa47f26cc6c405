//! What can be typed: clap types and nothing else, so that help needs no libtorch. Their meaning is worked out in
//! `gen`'s `settings`.
#![allow(missing_docs)] // clap takes doc comments for help texts

pub mod bench;
pub mod convert;
pub mod decode;
pub mod doctor;
pub mod encode;
pub mod eval;
pub mod extract;
pub mod features;
pub mod fetch;
pub mod inspect;
pub mod logits;
mod metric;
pub mod plot;
pub mod probe;
pub mod recipe;
pub mod reconstruct;
pub mod sample;
pub mod train;
pub mod train_ar;
pub mod train_features;
pub mod train_tokenizer;

use std::path::PathBuf;

use choices::{DeviceChoice, Precision};
use clap::{Args, Parser, Subcommand};

/// Autoregressive image generation with 1-D tokenizers (GigaTok) and LlamaGen-style transformers.
#[derive(Debug, Parser)]
#[command(name = "gen", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// Only results, warnings and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Images of more pixels count as damaged [default: 178956970, Pillow's limit]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pixels: Option<u64>,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// One variant for each verb.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make images of classes
    Sample(Box<sample::SampleArgs>),
    /// Train a transformer on a tokenizer's codes
    TrainAr(train_ar::TrainArArgs),
    /// Train a tokenizer on images
    TrainTokenizer(train_tokenizer::TrainTokenizerArgs),
    /// Train a small classifier on labelled images, to guide a tokenizer's training
    TrainFeatures(train_features::TrainFeaturesArgs),
    /// Draw curves of training runs side by side
    Plot(plot::PlotArgs),
    /// Images → code shards, to train transformers on
    Extract(extract::ExtractArgs),
    /// Encode and decode images; score and show what is lost
    Reconstruct(reconstruct::ReconstructArgs),
    /// Score images: FID and its kin, PSNR, SSIM, LPIPS, codebook usage
    Eval(Box<eval::EvalArgs>),
    /// Images → codes in a safetensors file
    Encode(encode::EncodeArgs),
    /// Codes in a safetensors file → images
    Decode(decode::DecodeArgs),
    /// What a transformer predicts at every position, given the true codes
    Logits(logits::LogitsArgs),
    /// Linear-probe accuracy of a transformer or a tokenizer
    Probe(Box<probe::ProbeArgs>),
    /// Images → features of a frozen network, in an .npz file
    Features(features::FeaturesArgs),
    /// Public weights of frozen networks: list them, or fetch them into the models folder
    Fetch(fetch::FetchArgs),
    /// What a checkpoint, a config or a folder of codes contains
    Inspect(inspect::InspectArgs),
    /// .pt ⇄ .safetensors
    Convert(convert::ConvertArgs),
    /// How fast this machine samples, encodes, decodes, trains and evaluates, beside what it could do
    Bench(bench::BenchArgs),
    /// Tell what libtorch, CPU, GPUs and models are there, and run a tiny self-test
    Doctor(doctor::DoctorArgs),
}

impl Command {
    /// The batch size in use, for the hint after running out of memory.
    pub fn batch_size(&self) -> Option<i64> {
        match self {
            Command::Sample(args) => Some(args.batch.batch_size),
            Command::Reconstruct(args) => Some(args.batch.batch_size),
            Command::Eval(args) => Some(args.run.batch.batch_size),
            Command::Encode(args) => Some(args.batch.batch_size),
            Command::Decode(args) => Some(args.batch.batch_size),
            Command::Extract(args) => Some(args.batch.batch_size),
            Command::Logits(args) => Some(args.batch.batch_size),
            Command::Probe(args) => Some(args.head.batch_size),
            Command::Features(args) => Some(args.batch.batch_size),
            _ => None,
        }
    }
}

/// Where and how to compute.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub struct ComputeArgs {
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Kind of weights and activations: fp32, bf16 or fp16
    #[arg(long, value_name = "KIND", default_value_t, value_parser = floating)]
    pub precision: Precision,
}

/// A precision that every network can run in.
fn floating(text: &str) -> Result<Precision, String> {
    match text.parse()? {
        Precision::Int8 => {
            Err("int8 is for a transformer that decodes (`gen sample`); choose fp32, bf16 or fp16".into())
        }
        precision => Ok(precision),
    }
}

/// Where to compute.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub struct DeviceArgs {
    /// auto (CUDA where there is one), cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceChoice,

    /// CPU threads [default: the number of physical cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,

    /// On a CUDA device: fp32 products and convolutions round their inputs to TF32's ten bits, as the official trainers
    /// let them; several times as fast. Without it fp32 is fp32
    #[arg(long)]
    pub tf32: bool,
}

/// How a GPU decodes.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Computing")]
pub struct GpuArgs {
    /// On a CUDA device, in bf16: decode with the program's own kernels instead of libtorch's operations (int8 always
    /// does), and run a tokenizer in bf16 channels last with its group norms by them
    #[arg(long)]
    pub gpu_kernels: bool,

    /// The same kernels with keys and values of 8 bits: half the memory, and half the reading of large batches
    #[arg(long)]
    pub int8_cache: bool,
}

/// A tokenizer, for verbs that need no transformer.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct TokenizerArgs {
    /// A tokenizer's directory, a config (then with --weights), or the name of a shipped model
    /// [default: the shipped model's]
    #[arg(long, value_name = "DIR|CONFIG|NAME")]
    pub tokenizer: Option<String>,

    /// The tokenizer's checkpoint: .pt or .safetensors
    #[arg(long, value_name = "FILE", requires = "tokenizer", visible_alias = "tokenizer-weights")]
    pub weights: Option<PathBuf>,
}

/// A transformer, and the tokenizer it goes with.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A model's directory, a config (then with --weights), or the name of a shipped model
    /// [default: the shipped model]
    #[arg(long, value_name = "DIR|CONFIG|NAME")]
    pub model: Option<String>,

    /// The transformer's checkpoint: .pt or .safetensors
    #[arg(long, value_name = "FILE", requires = "model")]
    pub weights: Option<PathBuf>,
}

/// The tokenizer beside [`ModelArgs`].
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct PairedTokenizerArgs {
    /// The tokenizer's directory, or its config (then with --tokenizer-weights)
    /// [default: the one in the model's directory]
    #[arg(long, value_name = "DIR|CONFIG|NAME")]
    pub tokenizer: Option<String>,

    /// The tokenizer's checkpoint: .pt or .safetensors
    #[arg(long, value_name = "FILE", requires = "tokenizer")]
    pub tokenizer_weights: Option<PathBuf>,
}

/// Where the weights of frozen networks are.
#[derive(Debug, Clone, Args)]
pub struct ModelsDirArgs {
    /// The folder of public weight files [default: $GEN_MODELS, else gen/models in the user's cache folder]
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    pub models_dir: Option<PathBuf>,
}

/// How many items go through the model together.
#[derive(Debug, Clone, Args)]
pub struct BatchArgs {
    /// How many images go through the model together
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(i64).range(1..))]
    pub batch_size: i64,
}

/// The seed of all randomness.
#[derive(Debug, Clone, Args)]
pub struct SeedArgs {
    /// Seed of all randomness
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

/// For machines.
#[derive(Debug, Clone, Args)]
pub struct JsonArgs {
    /// Print the results as one JSON document
    #[arg(long)]
    pub json: bool,
}
