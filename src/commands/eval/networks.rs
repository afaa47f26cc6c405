//! The frozen networks of a run.

use std::collections::BTreeMap;

use anyhow::Result;
use backbones::files::{PublicFile, models_folder};
use backbones::{
    EfficientNetSize, FeatureExtractor, FeatureId, InputPath, Lpips, LpipsNet, Network, PerceptualConfig,
    PerceptualDistance, WeightSource,
};
use base::Precision;
use choices::Metric;
use cli::eval::NetworkArgs;
use serde::{Deserialize, Serialize};
use tch::Device;

use super::clip_score::ClipScorer;
use super::metrics::Plan;
use crate::context::Context;
use crate::failure::Failure;

/// What a network is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// FID and what reads the same features: Inception, or the network of `--network`.
    Main,
    /// Class agreement, where `--network` names no network.
    Classifier,
    /// FDD.
    Dino,
    /// CMMD.
    Clip,
}

impl Role {
    /// As it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Role::Main => "main",
            Role::Classifier => "classifier",
            Role::Dino => "dino",
            Role::Clip => "clip",
        }
    }
}

/// Open networks.
pub struct Networks {
    /// Networks with features, by use.
    pub features: BTreeMap<Role, Box<dyn FeatureExtractor>>,
    /// LPIPS.
    pub lpips: Option<(Lpips, FeatureId)>,
    /// The distance by EfficientNet-Lite's features.
    pub perceptual: Option<(PerceptualDistance, FeatureId)>,
    /// CLIP score.
    pub clip_score: Option<ClipScorer>,
    /// Whose classes are compared with the images'.
    pub classifier: Option<Role>,
}

impl Networks {
    /// Opens what the plan's scores read; warns where weights are not the public ones.
    pub fn open(plan: &Plan, args: &NetworkArgs, device: Device, context: &Context) -> Result<Self> {
        let mut features = BTreeMap::new();
        for role in plan.roles() {
            features.insert(role, open(role, args, device)?);
        }
        let lpips = plan.has(Metric::Lpips).then(|| open_lpips(args, device)).transpose()?;
        let perceptual = plan.has(Metric::Perceptual).then(|| open_perceptual(args, device)).transpose()?;
        let clip_score = plan.has(Metric::ClipScore).then(|| ClipScorer::open(args, device)).transpose()?;
        let networks = Networks { features, lpips, perceptual, clip_score, classifier: plan.classifier() };
        for id in networks.ids() {
            context.printer.note(&format!("network: {id}"));
            if !id.comparable {
                let text = format!(
                    "{}: these weights are not the public ones; scores compare with nothing published",
                    id.network
                );
                context.printer.warning(&text);
            }
        }
        Ok(networks)
    }

    /// Whose features.
    pub fn ids(&self) -> Vec<&FeatureId> {
        let features = self.features.values().map(|n| n.id());
        let pairs = self.lpips.iter().map(|(_, id)| id).chain(self.perceptual.iter().map(|(_, id)| id));
        features.chain(pairs).chain(self.clip_score.iter().map(|clip| &clip.id)).collect()
    }
}

/// The classifier that is asked where none is named.
const CLASSIFIER: Network = Network::EfficientNetLite(EfficientNetSize::Lite0);

/// What `--network` names.
pub fn named(args: &NetworkArgs) -> Result<Option<Network>> {
    Ok(args.network.as_deref().map(str::parse).transpose()?)
}

/// Opens the network of one use.
pub fn open(role: Role, args: &NetworkArgs, device: Device) -> Result<Box<dyn FeatureExtractor>> {
    let path = |given: &Option<String>| given.as_deref().map(str::parse::<InputPath>).transpose();
    let (network, asked, path) = match role {
        Role::Main => match named(args)? {
            Some(network) => (network, &args.network_weights, path(&args.network_input)?),
            None => {
                (Network::InceptionFid, &args.inception, Some(args.inception_input.parse::<InputPath>()?))
            }
        },
        Role::Classifier => (CLASSIFIER, &args.network_weights, path(&args.network_input)?),
        Role::Dino => (args.dinov2_network.parse()?, &args.dinov2, None),
        Role::Clip => (args.clip_network.parse()?, &args.clip, Some(InputPath::Cmmd)),
    };
    let asked = source(asked)?;
    let models = models_folder(args.models.models_dir.as_deref());
    let weights = network.weights(asked.as_ref(), &models)?;
    Ok(network.open(&weights, path, device)?)
}

/// `FILE` or `random:SEED`, where given.
pub fn source(asked: &Option<String>) -> Result<Option<WeightSource>> {
    Ok(asked.as_deref().map(str::parse).transpose()?)
}

fn open_lpips(args: &NetworkArgs, device: Device) -> Result<(Lpips, FeatureId)> {
    let name = args.lpips.trim_start_matches("lpips-");
    let known = LpipsNet::ALL.into_iter().find(|net| net.name() == format!("lpips-{name}"));
    let net = known.ok_or_else(|| Failure::new(format!("`--lpips {name}`: choose vgg, alex or squeeze")))?;
    let trunk = given_or_public(&args.lpips_trunk, net.trunk_file(), args)?;
    let heads = given_or_public(&args.lpips_heads, net.name(), args)?;
    Ok(Lpips::open_with_id(&trunk, &heads, net, device)?)
}

fn open_perceptual(args: &NetworkArgs, device: Device) -> Result<(PerceptualDistance, FeatureId)> {
    let network = args.perceptual.parse::<Network>()?;
    let Network::EfficientNetLite(size) = network else {
        let message =
            format!("`--perceptual {}`: choose efficientnet-lite0 to efficientnet-lite4", args.perceptual);
        return Err(Failure::new(message).hint("`--metrics lpips` is the distance over VGG16").into());
    };
    let models = models_folder(args.models.models_dir.as_deref());
    let weights = network.weights(source(&args.perceptual_weights)?.as_ref(), &models)?;
    let config = PerceptualConfig { size, weights: Some(weights), ..PerceptualConfig::default() };
    Ok(PerceptualDistance::open_with_id(&config, device, Precision::Fp32)?)
}

fn given_or_public(given: &Option<String>, name: &str, args: &NetworkArgs) -> Result<WeightSource> {
    match source(given)? {
        Some(source) => Ok(source),
        None => {
            let models = models_folder(args.models.models_dir.as_deref());
            Ok(WeightSource::File(PublicFile::named(name)?.locate(&models)?))
        }
    }
}
