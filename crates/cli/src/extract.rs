//! `gen extract`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::TokenizerJobArgs;

/// Encodes a data set to codes, or with --text its captions to features, for training transformers.
/// Run the same command again to resume.
#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// Images: class folders, a folder, tar shards or a pattern of them, or a .jsonl or .csv list;
    /// repeatable
    #[arg(long, value_name = "PATH", required = true)]
    pub data: Vec<PathBuf>,

    /// Output folder
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    /// Extract caption features with this text encoder instead of codes (FLAN-T5 in Hugging Face's
    /// layout)
    #[arg(long, value_name = "DIR", help_heading = "Text", conflicts_with_all = ["augment", "crop_factor", "format",
        "tokenizer", "image_size"])]
    pub text: Option<PathBuf>,

    /// Maximum number of tokens per caption
    #[arg(long, value_name = "N", default_value_t = 120, requires = "text", help_heading = "Text",
        value_parser = clap::value_parser!(i64).range(1..))]
    pub text_length: i64,

    /// Also extract features of each caption's first sentence
    #[arg(long, requires = "text", help_heading = "Text")]
    pub first_sentence: bool,

    /// Use captions unchanged instead of cleaning them as published
    #[arg(long, requires = "text", help_heading = "Text")]
    pub raw_captions: bool,

    /// Image size for encoding, if the tokenizer supports several [default: the tokenizer's]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(i64).range(1..))]
    pub image_size: Option<i64>,

    /// Views of each image
    #[arg(long, value_name = "VIEWS", default_value = "none")]
    pub augment: Augment,

    /// With ten-crop: size of the square that crops are taken from, as a multiple of the image
    /// size; several values, such as `1.1,1.05`, give ten views each
    #[arg(long, value_name = "FACTOR", value_delimiter = ',', default_value = "1.1")]
    pub crop_factor: Vec<f64>,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "shards")]
    pub format: Format,

    /// Images per shard
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub shard_size: u32,

    /// Maximum number of unreadable images to skip
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub max_corrupt: usize,

    #[command(flatten)]
    pub job: TokenizerJobArgs,
}

/// Views of each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Augment {
    /// Centre crop
    None,
    /// Centre crop and its mirror image
    Flip,
    /// Four corners and the centre of a larger centre crop, and their mirror images
    TenCrop,
}

/// Storage formats of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Safetensors shards with an index
    Shards,
    /// Official layout: two .npy files per image
    Npy,
}
