//! `gen sample`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use settings::{GpuOptions, Precision, Rng, SamplingSettings};

use crate::{BatchArgs, DeviceArgs, JsonArgs, ModelArgs, PairedTokenizerArgs, SeedArgs};

/// Folder of PNGs if none is named.
pub const DEFAULT_OUTPUT: &str = "samples";

/// Arguments of `gen sample`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["class", "prompt", "prompts", "num_images", "from"]).multiple(true).required(true))]
pub struct SampleArgs {
    /// Classes by index, WordNet id or name; lists and ranges (207, n02099601, "golden retriever",
    /// 0-9,360)
    #[arg(long, value_name = "CLASS", num_args = 1..)]
    pub class: Vec<String>,

    /// Prompt; repeatable
    #[arg(long, value_name = "TEXT", conflicts_with = "class")]
    pub prompt: Vec<String>,

    /// Prompt file: one per line, a table with a column `Prompt` (PartiPrompts), or JSON lines
    #[arg(long, value_name = "FILE", conflicts_with = "class")]
    pub prompts: Option<PathBuf>,

    /// Negative prompt: content to steer away from, instead of the model's null condition
    #[arg(long, value_name = "TEXT", conflicts_with = "class")]
    pub negative_prompt: Option<String>,

    /// Folder of the text encoder (FLAN-T5 in Hugging Face's layout) [default: the model's own]
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    pub text_encoder: Option<PathBuf>,

    /// Number of images per class or prompt [default: 4 per class, 1 per prompt]
    #[arg(long, value_name = "N", conflicts_with = "num_images", value_parser = clap::value_parser!(u64).range(1..))]
    pub num: Option<u64>,

    #[command(flatten)]
    pub draw: DrawArgs,

    /// Reproduce the image of this PNG from the settings stored in it
    #[arg(long, value_name = "PNG", conflicts_with_all = ["class", "prompt", "prompts",
        "negative_prompt", "num", "num_images", "npz", "size", "seed", "rng", "speculative",
        "cfg", "cfg_schedule", "cfg_start", "cfg_end", "cfg_interval", "temperature", "top_k", "top_p", "min_p",
        "typical_p",
        "batch_size", "precision", "tokenizer_precision"])]
    pub from: Option<PathBuf>,

    /// Output folder for PNGs and a contact sheet [default: samples, unless --npz is given; with
    /// --from: samples/again]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Write all images to one .npz (arr_0, uint8, N×H×W×3); run the same command again to resume
    #[arg(long, value_name = "FILE")]
    pub npz: Option<PathBuf>,

    /// Image size in pixels, by bicubic resizing [default: the tokenizer's]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(i64).range(1..=8192))]
    pub size: Option<i64>,

    #[command(flatten)]
    pub sampling: SamplingSettings,

    /// Source of randomness [default: image; with --speculative: gumbel]
    #[arg(long, value_enum, help_heading = "Sampling")]
    pub rng: Option<Rng>,

    /// Speculative decoding: verify up to K draft codes per forward pass; the same images as --rng
    /// gumbel, faster at small batch sizes
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

/// Device, precision and kernels.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Computing")]
pub struct DecodingArgs {
    #[command(flatten)]
    pub device: DeviceArgs,

    /// Dtype of the transformer's weights: fp32, bf16, fp16, or int8 (fastest for small batches).
    /// The text encoder runs in bf16 with bf16, else in fp32, since T5 overflows in fp16
    #[arg(long, value_name = "DTYPE", default_value_t)]
    pub precision: Precision,

    /// Dtype of the tokenizer: fp32, bf16 or fp16
    #[arg(long, value_name = "DTYPE", default_value_t, value_parser = crate::floating)]
    pub tokenizer_precision: Precision,

    /// Capture one decoding step as a CUDA graph and replay it for every code, which saves most of
    /// the time of small models; with --rng image
    #[arg(long, conflicts_with_all = ["speculative", "rng"])]
    pub cuda_graph: bool,

    #[command(flatten)]
    pub gpu: GpuOptions,
}

/// Number of images, and choice of their classes or prompts.
#[derive(Debug, Clone, Args)]
pub struct DrawArgs {
    /// Total number of images, of random classes (all known ones, or those given), as for FID, or
    /// of random prompts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub num_images: Option<u64>,

    /// With --num-images: use every class or prompt equally often instead of at random
    #[arg(long, requires = "num_images")]
    pub balanced: bool,
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    #[test]
    fn an_image_made_again_takes_no_sampling_options() {
        let command = SampleArgs::augment_args(Command::new("sample"));
        let from = command.get_arguments().find(|arg| arg.get_id() == "from").unwrap();
        let conflicts = command.get_arg_conflicts_with(from);
        let options = SamplingSettings::augment_args(Command::new("options"));
        for option in options.get_arguments() {
            assert!(conflicts.iter().any(|arg| arg.get_id() == option.get_id()), "{}", option.get_id());
        }
    }
}
