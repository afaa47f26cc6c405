//! `gen extract`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::{BatchArgs, ComputeArgs, JsonArgs, TokenizerArgs};

/// Encodes a set of images once, or with --text their captions, for training transformers on them. Run again, it goes on where it stopped.
#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// Images: class folders, a folder, tar shards or a pattern of them, a .jsonl or .csv list; several follow one
    /// another
    #[arg(long, value_name = "PATH", required = true)]
    pub data: Vec<PathBuf>,

    /// The folder for the codes
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    /// Store features of the captions instead of codes, by this text encoder (FLAN-T5 in Hugging Face's layout)
    #[arg(long, value_name = "DIR", help_heading = "Text", conflicts_with_all = ["augment", "crop_factor", "format",
        "tokenizer", "image_size"])]
    pub text: Option<PathBuf>,

    /// The most tokens of a caption
    #[arg(long, value_name = "N", default_value_t = 120, requires = "text", help_heading = "Text",
        value_parser = clap::value_parser!(i64).range(1..))]
    pub text_length: i64,

    /// Also of each caption's first sentence
    #[arg(long, requires = "text", help_heading = "Text")]
    pub first_sentence: bool,

    /// Captions as they are, not cleaned as published
    #[arg(long, requires = "text", help_heading = "Text")]
    pub raw_captions: bool,

    /// Side at which images are encoded, where the tokenizer takes more than its own [default: the tokenizer's]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(i64).range(1..))]
    pub image_size: Option<i64>,

    /// Views of each image that are encoded
    #[arg(long, value_name = "VIEWS", default_value = "none")]
    pub augment: Augment,

    /// With ten-crop: side of the square from which the crops are cut, as a multiple of the image size; several,
    /// such as `1.1,1.05`, give ten views each
    #[arg(long, value_name = "FACTOR", value_delimiter = ',', default_value = "1.1")]
    pub crop_factor: Vec<f64>,

    /// How codes are stored
    #[arg(long, value_name = "FORMAT", default_value = "shards")]
    pub format: Format,

    /// Images in a shard
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub shard_size: u32,

    /// How many images that cannot be decoded are left out before it is an error
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub max_corrupt: usize,

    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    #[command(flatten)]
    pub batch: BatchArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

/// Views of each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Augment {
    /// The centre crop
    None,
    /// The centre crop and its mirror image
    Flip,
    /// Four corners and the middle of a larger centre crop, and their mirror images
    TenCrop,
}

/// How codes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Safetensors shards with an index that names the tokenizer
    Shards,
    /// The official layout: two .npy files an image
    Npy,
}
