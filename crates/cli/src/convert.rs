//! `gen convert`.

use std::path::PathBuf;

use choices::Precision;
use clap::{Args, ValueEnum};

use crate::JsonArgs;

/// Arguments of `gen convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The checkpoint to read: .pt of any age, or safetensors, in one file or in shards
    #[arg(value_name = "IN")]
    pub input: PathBuf,

    /// The file to write
    #[arg(value_name = "OUT")]
    pub output: PathBuf,

    /// What to write [default: as the ending of OUT says]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<TargetFormat>,

    /// The section to take [default: ema, else model, module, state_dict, or the top level]
    #[arg(long, value_name = "NAME")]
    pub section: Option<String>,

    /// The key under which a .pt holds the weights
    #[arg(long, value_name = "KEY", default_value = "model", conflicts_with = "bare")]
    pub under: String,

    /// Write floating tensors as fp32, bf16 or fp16 [default: as they are]
    #[arg(long, value_name = "KIND", value_parser = crate::floating)]
    pub precision: Option<Precision>,

    /// Write the weights at the top level of a .pt, under no key
    #[arg(long)]
    pub bare: bool,

    #[command(flatten)]
    pub json: JsonArgs,
}

/// Formats that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TargetFormat {
    /// PyTorch; opens with torch.load(weights_only=True)
    Pt,
    /// Safetensors
    Safetensors,
}
