//! `--network` and its like.

use std::str::FromStr;

use anyhow::Result;
use backbones::files::weights_folder;
use backbones::{LpipsNet, Network, WeightSource};
use cli::eval::NetworkArgs;
use eval::NetworkOptions;

use crate::error::UserError;

/// Reads the arguments.
pub fn options(args: &NetworkArgs) -> Result<NetworkOptions> {
    Ok(NetworkOptions {
        models: weights_folder(args.weights_folder.weights_dir.as_deref()),
        network: parsed(&args.network)?,
        network_weights: weights(&args.network_weights)?,
        network_input: parsed(&args.network_input)?,
        inception_weights: weights(&args.inception)?,
        inception_input: args.inception_input.parse()?,
        dino: args.dinov2_network.parse()?,
        dino_weights: weights(&args.dinov2)?,
        clip: args.clip_network.parse()?,
        clip_weights: weights(&args.clip)?,
        clip_score: clip_score(&args.clip_score_network)?,
        clip_score_weights: weights(&args.clip_score_weights)?,
        clip_text: args.clip_text.clone(),
        lpips: lpips(&args.lpips)?,
        lpips_trunk: weights(&args.lpips_trunk)?,
        lpips_heads: weights(&args.lpips_heads)?,
        perceptual: perceptual(&args.perceptual)?,
        perceptual_weights: weights(&args.perceptual_weights)?,
    })
}

fn parsed<T: FromStr>(text: &Option<String>) -> Result<Option<T>, T::Err> {
    text.as_deref().map(str::parse).transpose()
}

fn weights(text: &Option<String>) -> Result<Option<WeightSource>> {
    Ok(parsed(text)?)
}

fn clip_score(name: &str) -> Result<backbones::ClipModel> {
    match name.parse()? {
        Network::Clip(model) => Ok(model),
        _ => Err(UserError::new(format!("`--clip-score-network {name}` is no CLIP"))
            .hint("choose clip-b32, clip-l14 or clip-l14-336")
            .into()),
    }
}

fn lpips(name: &str) -> Result<LpipsNet> {
    let name = name.trim_start_matches("lpips-");
    let known = LpipsNet::ALL.into_iter().find(|net| net.name() == format!("lpips-{name}"));
    Ok(known.ok_or_else(|| UserError::new(format!("`--lpips {name}`: choose vgg, alex or squeeze")))?)
}

fn perceptual(name: &str) -> Result<backbones::EfficientNetSize> {
    match name.parse()? {
        Network::EfficientNetLite(size) => Ok(size),
        _ => {
            let message = format!("`--perceptual {name}`: choose efficientnet-lite0 to efficientnet-lite4");
            Err(UserError::new(message).hint("`--metrics lpips` is the distance over VGG16").into())
        }
    }
}
