//! `gen convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use settings::Precision;

use crate::JsonArgs;

/// Arguments of `gen convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// Input checkpoint: .pt of any version, or safetensors, single or sharded
    #[arg(value_name = "IN")]
    pub input: PathBuf,

    /// Output file
    #[arg(value_name = "OUT")]
    pub output: PathBuf,

    /// Output format [default: by the extension of OUT]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<TargetFormat>,

    /// Section to convert [default: ema, else model, module, state_dict, or the top level]
    #[arg(long, value_name = "NAME")]
    pub section: Option<String>,

    /// Key of the weights in a .pt
    #[arg(long, value_name = "KEY", default_value = "model", conflicts_with = "bare")]
    pub under: String,

    /// Convert floating-point tensors to fp32, bf16 or fp16 [default: unchanged]
    #[arg(long, value_name = "DTYPE", value_parser = crate::floating)]
    pub precision: Option<Precision>,

    /// Write the weights at the top level of a .pt
    #[arg(long)]
    pub bare: bool,

    #[command(flatten)]
    pub json: JsonArgs,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TargetFormat {
    /// PyTorch; opens with torch.load(weights_only=True)
    Pt,
    /// Safetensors
    Safetensors,
}
