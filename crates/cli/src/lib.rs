//! Command-line arguments: clap types only, so that help needs no libtorch. `gen`'s `settings`
//! resolve them.
#![allow(missing_docs)] // doc comments are help texts

pub mod bench;
pub mod benchmark;
pub mod convert;
pub mod decode;
pub mod doctor;
pub mod encode;
pub mod eval;
pub mod extract;
pub mod features;
pub mod fetch;
pub mod inspect;
pub mod launch;
pub mod logits;
mod metric;
pub mod plot;
pub mod probe;
pub mod reconstruct;
pub mod sample;
pub mod serve;
pub mod train;
pub mod train_ar;
pub mod train_features;
pub mod train_tokenizer;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use settings::{DeviceChoice, ModelChoice, Precision};

/// Autoregressive image generation with 1-D tokenizers (GigaTok) and LlamaGen-style transformers.
#[derive(Debug, Parser)]
#[command(name = "gen", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// Print only results, warnings and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Treat images with more pixels as damaged [default: 178956970, Pillow's limit]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pixels: Option<u64>,

    /// Command
    #[command(subcommand)]
    pub command: Command,
}

/// Verbs of `gen`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Generate images from classes or prompts
    Sample(Box<sample::SampleArgs>),
    /// Serve images over HTTP: OpenAI's interface, and a page
    Serve(Box<serve::ServeArgs>),
    /// Train a transformer on a tokenizer's codes
    TrainAr(train_ar::TrainArArgs),
    /// Train a tokenizer on images
    TrainTokenizer(train_tokenizer::TrainTokenizerArgs),
    /// Train a small classifier on labelled images, as a perceptual loss for tokenizers
    TrainFeatures(train_features::TrainFeaturesArgs),
    /// Plot training curves of several runs
    Plot(plot::PlotArgs),
    /// Encode a data set to code shards, for training transformers
    Extract(extract::ExtractArgs),
    /// Encode and decode images, and score the result
    Reconstruct(reconstruct::ReconstructArgs),
    /// Score images: FID, IS, precision, recall, PSNR, SSIM, LPIPS and more
    Eval(Box<eval::EvalArgs>),
    /// Encode images to codes in a safetensors file
    Encode(encode::EncodeArgs),
    /// Decode codes to images
    Decode(decode::DecodeArgs),
    /// Compute a transformer's teacher-forced logits
    Logits(logits::LogitsArgs),
    /// Measure the linear-probe accuracy of a transformer or a tokenizer
    Probe(Box<probe::ProbeArgs>),
    /// Extract features of a frozen network to an .npz file
    Features(features::FeaturesArgs),
    /// List or download public weights of frozen networks
    Fetch(fetch::FetchArgs),
    /// List the contents of a checkpoint, a config or a folder of codes
    Inspect(inspect::InspectArgs),
    /// Convert checkpoints between .pt and .safetensors
    Convert(convert::ConvertArgs),
    /// Benchmark sampling, encoding, decoding, training and evaluation against the hardware's
    /// limits
    Bench(bench::BenchArgs),
    /// Run a verb as several processes on this machine
    Launch(launch::LaunchArgs),
    /// Report libtorch, CPU, GPUs and models, and run a self-test
    Doctor(doctor::DoctorArgs),
}

impl Command {
    /// The work that only a single process does, in words; `None` if several can share it.
    pub fn one_process(&self) -> Option<&'static str> {
        match self {
            Command::Decode(_)
            | Command::Encode(_)
            | Command::Extract(_)
            | Command::Features(_)
            | Command::Logits(_)
            | Command::Probe(_)
            | Command::Reconstruct(_)
            | Command::Sample(_)
            | Command::TrainAr(_)
            | Command::TrainFeatures(_)
            | Command::TrainTokenizer(_) => None,
            Command::Eval(args) => args.one_process(),
            _ => Some("this verb"),
        }
    }

    /// Batch size, for the hint after running out of memory.
    pub fn batch_size(&self) -> Option<i64> {
        match self {
            Command::Sample(args) => Some(args.batch.batch_size),
            Command::Reconstruct(args) => Some(args.job.batch.batch_size),
            Command::Eval(args) => Some(args.run.batch.batch_size),
            Command::Encode(args) => Some(args.job.batch.batch_size),
            Command::Decode(args) => Some(args.job.batch.batch_size),
            Command::Extract(args) => Some(args.job.batch.batch_size),
            Command::Logits(args) => Some(args.batch.batch_size),
            Command::Probe(args) => Some(args.head.batch_size),
            Command::Features(args) => Some(args.batch.batch_size),
            _ => None,
        }
    }
}

/// Device and precision.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub struct ComputeArgs {
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Dtype of weights and activations: fp32, bf16 or fp16
    #[arg(long, value_name = "DTYPE", default_value_t, value_parser = floating)]
    pub precision: Precision,
}

/// Parses a precision that every network supports.
fn floating(text: &str) -> Result<Precision, String> {
    match text.parse()? {
        Precision::Int8 => Err(
            "int8 is supported for a transformer's decoding only (`gen sample`); choose fp32, bf16 or fp16"
                .into(),
        ),
        precision => Ok(precision),
    }
}

/// Device.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub struct DeviceArgs {
    /// Device: auto (CUDA if available), cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceChoice,

    /// Number of CPU threads [default: number of physical cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,

    /// Allow TF32 in fp32 matrix products and convolutions on CUDA devices, as the official
    /// trainers do: several times faster, with 10-bit mantissas
    #[arg(long)]
    pub tf32: bool,
}

/// A tokenizer, for verbs that need no transformer.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct TokenizerArgs {
    /// Tokenizer: a directory, a config (with --weights), or the name of a bundled model [default:
    /// the bundled model's]
    #[arg(long, value_name = "DIR|CONFIG|NAME")]
    pub tokenizer: Option<String>,

    /// Tokenizer checkpoint, .pt or .safetensors
    #[arg(long, value_name = "FILE", requires = "tokenizer", visible_alias = "tokenizer-weights")]
    pub weights: Option<PathBuf>,
}

impl TokenizerArgs {
    /// The tokenizer as it was named.
    pub fn choice(&self) -> ModelChoice {
        ModelChoice { name: self.tokenizer.clone(), weights: self.weights.clone() }
    }
}

/// A transformer, and the tokenizer it goes with.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// Model: a directory, a config (with --weights), or the name of a bundled model [default: the
    /// bundled model]
    #[arg(long, value_name = "DIR|CONFIG|NAME")]
    pub model: Option<String>,

    /// Transformer checkpoint, .pt or .safetensors
    #[arg(long, value_name = "FILE", requires = "model")]
    pub weights: Option<PathBuf>,
}

impl ModelArgs {
    /// The transformer as it was named.
    pub fn choice(&self) -> ModelChoice {
        ModelChoice { name: self.model.clone(), weights: self.weights.clone() }
    }
}

/// The tokenizer beside [`ModelArgs`].
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct PairedTokenizerArgs {
    /// Tokenizer: a directory, or a config (with --tokenizer-weights) [default: the one in the
    /// model directory]
    #[arg(long, value_name = "DIR|CONFIG|NAME")]
    pub tokenizer: Option<String>,

    /// Tokenizer checkpoint, .pt or .safetensors
    #[arg(long, value_name = "FILE", requires = "tokenizer")]
    pub tokenizer_weights: Option<PathBuf>,
}

impl PairedTokenizerArgs {
    /// The tokenizer as it was named.
    pub fn choice(&self) -> ModelChoice {
        ModelChoice { name: self.tokenizer.clone(), weights: self.tokenizer_weights.clone() }
    }
}

/// Where the weights of frozen networks are.
#[derive(Debug, Clone, Args)]
pub struct WeightsDirArgs {
    /// Folder of public weight files [default: $GEN_WEIGHTS, else gen/weights in the user's cache
    /// folder]
    #[arg(long, alias = "models-dir", value_name = "DIR", help_heading = "Model")]
    pub weights_dir: Option<PathBuf>,
}

/// Batch size.
#[derive(Debug, Clone, Args)]
pub struct BatchArgs {
    /// Batch size
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(i64).range(1..))]
    pub batch_size: i64,
}

/// Random seed.
#[derive(Debug, Clone, Args)]
pub struct SeedArgs {
    /// Random seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

/// JSON output.
#[derive(Debug, Clone, Args)]
pub struct JsonArgs {
    /// Print the results as one JSON document
    #[arg(long)]
    pub json: bool,
}

/// A job of a tokenizer.
#[derive(Debug, Clone, Args)]
pub struct TokenizerJobArgs {
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    #[command(flatten)]
    pub batch: BatchArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}
