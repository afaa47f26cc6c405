//! `gen features`.

use std::path::PathBuf;

use clap::Args;

use crate::{BatchArgs, DeviceArgs, JsonArgs, WeightsDirArgs};

/// Arguments of `gen features`.
#[derive(Debug, Args)]
pub struct FeaturesArgs {
    /// Images: files, folders, tar archives, or safetensors files with a tensor `images` (B, 3, H,
    /// W) in [-1, 1]
    #[arg(value_name = "IMAGES", required = true)]
    pub images: Vec<PathBuf>,

    /// Output .npz: `pool` (N, D) fp32, further outputs of the network, and `names`
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// Network: inception-fid, dinov2-{s,b,l,g}14, dinov2-{s,b,l,g}14-reg, clip-b32, clip-l14,
    /// clip-l14-336 or efficientnet-lite{0..4}
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub network: String,

    /// Weight file, or random:SEED for random weights, whose features are not comparable [default:
    /// the public file in the weights folder]
    #[arg(long, value_name = "FILE|random:SEED", help_heading = "Model")]
    pub weights: Option<String>,

    /// Preprocessing: tf, pf or clean (inception-fid), pil or tf (dinov2), clip or
    /// cmmd (clip), pil or stored (efficientnet-lite) [default: the first]
    #[arg(long, value_name = "PATH", help_heading = "Model")]
    pub input_path: Option<String>,

    #[command(flatten)]
    pub weights_folder: WeightsDirArgs,
    #[command(flatten)]
    pub batch: BatchArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}
