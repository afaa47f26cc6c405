//! `gen eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use settings::{Metric, ReferenceKind, SamplingSettings};

use crate::benchmark::BenchmarkArgs;
use crate::metric;
use crate::sample::DrawArgs;
use crate::{BatchArgs, ComputeArgs, JsonArgs, ModelArgs, PairedTokenizerArgs, SeedArgs, WeightsDirArgs};

/// Arguments of `gen eval`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct EvalArgs {
    #[command(subcommand)]
    pub command: Option<EvalCommand>,

    #[command(flatten)]
    pub run: RunArgs,

    #[command(flatten)]
    pub benchmark: BenchmarkArgs,
}

impl EvalArgs {
    /// The work that only a single process does, in words.
    pub fn one_process(&self) -> Option<&'static str> {
        let alone = [
            (self.benchmark.benchmark.is_some(), "`gen eval --benchmark`"),
            (self.run.features.is_some(), "`gen eval --features`"),
            (!self.run.parts.merge.is_empty(), "`gen eval --merge`"),
        ];
        alone.into_iter().find(|(asked, _)| *asked).map(|(_, work)| work)
    }
}

/// Subcommands of evaluation.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Compute the statistics of a reference set
    Stats(StatsArgs),
}

/// Arguments of scoring.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Images to score: a folder, tar shards, a list, or an .npz with `arr_0`
    #[arg(value_name = "IMAGES", conflicts_with_all = ["num_images", "reconstruct", "likelihood", "features"])]
    pub images: Option<PathBuf>,

    /// Reference: images in any of these forms, or statistics (.npz of ADM, pytorch-fid, clean-fid
    /// or `gen eval stats`, .pt of torch-fidelity)
    #[arg(long, value_name = "PATH")]
    pub reference: Option<PathBuf>,

    /// Comma-separated metrics [default: psnr,ssim,ssim_dr2,lpips,fid,codebook with --reconstruct,
    /// ar_loss with --likelihood, else fid,sfid,is,precision,recall]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = metric::metric())]
    pub metrics: Vec<Metric>,

    /// Score features (.npz from `gen features`) instead of images
    #[arg(long, value_name = "FILE", requires = "reference_features", conflicts_with_all = ["images", "reference", "network"])]
    pub features: Option<PathBuf>,

    /// Reference for --features
    #[arg(long, value_name = "FILE", requires = "features")]
    pub reference_features: Option<PathBuf>,

    /// Images sampled by a model for scoring; nothing is written
    #[command(flatten)]
    pub draw: DrawArgs,

    /// Score the tokenizer's reconstructions of these images, against the images themselves unless
    /// --reference is given
    #[arg(long, value_name = "IMAGES", conflicts_with_all = ["num_images", "likelihood", "features"])]
    pub reconstruct: Option<PathBuf>,

    /// Score the model's predictions of the codes of labelled images, or of a folder of code shards
    #[arg(long, value_name = "DATA", conflicts_with_all = ["num_images", "reference", "features"])]
    pub likelihood: Option<PathBuf>,

    /// Prompts for clip_score: one line per image, or JSON lines with path and text [default:
    /// captions of the data set; captions.txt, result.jsonl or metadata.jsonl in or next to the
    /// folder; PNG metadata]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["num_images", "likelihood", "features"])]
    pub captions: Option<PathBuf>,

    /// Crop and resize images to this size first, like ADM [default: images are used as stored and
    /// must have one size]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub resize: Option<u32>,

    /// With --reconstruct: resize reconstructions and originals to this size before scoring, by
    /// PyTorch's bicubic like LlamaGen [default: the size at which they are encoded]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub score_size: Option<u32>,

    /// Reject references of another kind [default: rfid with --reconstruct, gfid with --num-images, else any kind]
    #[arg(long, value_name = "NAME", value_parser = metric::protocol())]
    pub protocol: Option<ReferenceKind>,

    /// Reject a reference file with another SHA-256
    #[arg(long, value_name = "HEX", requires = "reference")]
    pub reference_sha256: Option<String>,

    /// Add a 95 % interval of FID and FDD, by a ten-fold jackknife over the images
    #[arg(long)]
    pub interval: bool,

    /// Number of nearest neighbours for precision and recall [default: 3], density and coverage
    /// [default: 5]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(i64).range(1..))]
    pub neighbours: Option<i64>,

    /// Number of KID subsets
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub kid_subsets: usize,

    /// Images per KID subset
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub kid_subset_size: usize,

    /// Classes among which class_agreement is also computed: indices, ranges, WordNet ids or names
    /// [default: the classes of the images]
    #[arg(long, value_name = "LIST")]
    pub among: Option<String>,

    #[command(flatten)]
    pub networks: NetworkArgs,
    #[command(flatten)]
    pub parts: PartArgs,

    /// Write a self-contained HTML report
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    #[command(flatten)]
    pub sampling: SamplingSettings,
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

/// Networks of scores, and their weights.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Networks")]
pub struct NetworkArgs {
    /// Feature network for fid, sfid, is, is_fidelity, kid, precision, recall, density and coverage
    /// (reported under names that say so) and classifier for class_agreement: inception-fid,
    /// dinov2-{s,b,l,g}14, dinov2-{s,b,l,g}14-reg, clip-b32, clip-l14, clip-l14-336 or
    /// efficientnet-lite{0..4} [default: inception-fid; efficientnet-lite0 for class_agreement]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["inception", "inception_input"])]
    pub network: Option<String>,

    /// Weights for --network, or for class_agreement's classifier without it
    #[arg(long, value_name = "FILE|random:SEED")]
    pub network_weights: Option<String>,

    /// Preprocessing for this network: pil or stored (efficientnet-lite), pil or tf (dinov2), tf,
    /// pf or clean (inception-fid), clip or cmmd (clip) [default: the first]
    #[arg(long, value_name = "PATH")]
    pub network_input: Option<String>,

    /// Weights of FID's Inception: a file, or random:SEED for scores that are not comparable
    /// [default, here and below: the public file in the weights folder]
    #[arg(long, value_name = "FILE|random:SEED")]
    pub inception: Option<String>,

    /// Preprocessing for Inception: tf (ADM, torch-fidelity), pf (pytorch-fid) or clean (clean-fid)
    #[arg(long, value_name = "PATH", default_value = "tf")]
    pub inception_input: String,

    /// Weights for --dinov2-network
    #[arg(long, value_name = "FILE|random:SEED")]
    pub dinov2: Option<String>,

    /// FDD's network
    #[arg(long, value_name = "NAME", default_value = "dinov2-l14")]
    pub dinov2_network: String,

    /// Weights for --clip-network
    #[arg(long, value_name = "FILE|random:SEED")]
    pub clip: Option<String>,

    /// CMMD's network
    #[arg(long, value_name = "NAME", default_value = "clip-l14-336")]
    pub clip_network: String,

    /// clip_score's network: clip-b32, clip-l14 or clip-l14-336
    #[arg(long, value_name = "NAME", default_value = "clip-b32")]
    pub clip_score_network: String,

    /// Weights for --clip-score-network
    #[arg(long, value_name = "FILE|random:SEED")]
    pub clip_score_weights: Option<String>,

    /// CLIP's vocabulary: a tokenizer.json, or a folder with vocab.json and merges.txt
    #[arg(long, value_name = "FILE|DIR")]
    pub clip_text: Option<PathBuf>,

    /// LPIPS trunk: vgg, alex or squeeze
    #[arg(long, value_name = "NAME", default_value = "vgg")]
    pub lpips: String,

    /// Weights of the LPIPS trunk
    #[arg(long, value_name = "FILE|random:SEED")]
    pub lpips_trunk: Option<String>,

    /// Weights of the LPIPS heads
    #[arg(long, value_name = "FILE|random:SEED")]
    pub lpips_heads: Option<String>,

    /// Network of the perceptual distance: efficientnet-lite{0..4}
    #[arg(long, value_name = "NAME", default_value = "efficientnet-lite0")]
    pub perceptual: String,

    /// Weights for --perceptual
    #[arg(long, value_name = "FILE|random:SEED")]
    pub perceptual_weights: Option<String>,

    #[command(flatten)]
    pub weights_folder: WeightsDirArgs,
}

/// Partial runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Parts")]
pub struct PartArgs {
    /// Keep accumulated statistics in this file; run the same command again to resume
    #[arg(long, value_name = "FILE")]
    pub partial: Option<PathBuf>,

    /// Process every N-th image starting at K (0 to N - 1), without scoring
    #[arg(long, value_name = "K/N", requires = "partial")]
    pub shard: Option<String>,

    /// Score the statistics that the shards of this run wrote to these files
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["partial", "shard"])]
    pub merge: Vec<PathBuf>,
}

/// Arguments of `gen eval stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Images: a folder, tar shards, a list, or an .npz with `arr_0`
    #[arg(value_name = "IMAGES")]
    pub images: PathBuf,

    /// Output .npz: `mu`, `sigma`, and `mu_s`, `sigma_s` if the network has spatial features
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// Purpose of the file: rfid (validation images), gfid (a training set) or other
    #[arg(long, value_name = "KIND", value_parser = metric::stats_kind())]
    pub kind: ReferenceKind,

    /// Description of the images, stored in the file
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,

    /// Statistics of DINOv2 features, for FDD, instead of Inception features
    #[arg(long, conflicts_with = "network")]
    pub fdd: bool,

    /// Crop and resize images to this size first, like ADM [default: images are used as stored and
    /// must have one size]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub resize: Option<u32>,

    #[command(flatten)]
    pub networks: NetworkArgs,
    #[command(flatten)]
    pub batch: BatchArgs,
    #[command(flatten)]
    pub compute: crate::DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}
