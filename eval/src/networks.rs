//! Frozen networks whose features several metrics read, and which weights they have.

use std::collections::BTreeMap;
use std::path::PathBuf;

use backbones::files::PublicFile;
use backbones::{
    ClipModel, EfficientNetSize, FeatureExtractor, FeatureId, Features, InputPath, LpipsNet, Network,
    WeightSource,
};
use base::{ImagesU8, finite};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::Result;

/// Use of a feature network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// FID and metrics on the same features: Inception, or the network chosen instead.
    Main,
    /// Class agreement, unless another network is chosen.
    Classifier,
    /// FDD.
    Dino,
    /// CMMD.
    Clip,
}

impl Role {
    /// Name in saved states.
    pub fn name(self) -> &'static str {
        match self {
            Role::Main => "main",
            Role::Classifier => "classifier",
            Role::Dino => "dino",
            Role::Clip => "clip",
        }
    }
}

/// Networks and their weights; without weights the public file is looked for in `models`.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// Folder of public weight files.
    pub models: PathBuf,
    /// Network instead of Inception.
    pub network: Option<Network>,
    /// Weights for `network`, or for the classifier.
    pub network_weights: Option<WeightSource>,
    /// Preprocessing for `network`, or for the classifier.
    pub network_input: Option<InputPath>,
    /// Weights of FID's Inception.
    pub inception_weights: Option<WeightSource>,
    /// Preprocessing for FID's Inception.
    pub inception_input: InputPath,
    /// FDD's network.
    pub dino: Network,
    /// Weights of FDD's network.
    pub dino_weights: Option<WeightSource>,
    /// CMMD's network.
    pub clip: Network,
    /// Weights of CMMD's network.
    pub clip_weights: Option<WeightSource>,
    /// Network of the CLIP score.
    pub clip_score: ClipModel,
    /// Weights of the network of the CLIP score.
    pub clip_score_weights: Option<WeightSource>,
    /// CLIP's vocabulary.
    pub clip_text: Option<PathBuf>,
    /// Trunk of LPIPS.
    pub lpips: LpipsNet,
    /// Weights of the trunk of LPIPS.
    pub lpips_trunk: Option<WeightSource>,
    /// Weights of the heads of LPIPS.
    pub lpips_heads: Option<WeightSource>,
    /// Network of the perceptual distance.
    pub perceptual: EfficientNetSize,
    /// Weights of the network of the perceptual distance.
    pub perceptual_weights: Option<WeightSource>,
}

/// Classifier where no other network is chosen.
const CLASSIFIER: Network = Network::EfficientNetLite(EfficientNetSize::Lite0);

impl NetworkOptions {
    /// Opens the feature network of a role.
    ///
    /// # Errors
    /// Returns an error if its weights are missing or cannot be read.
    pub fn open(&self, role: Role, device: Device) -> Result<Box<dyn FeatureExtractor>> {
        let (network, weights, input) = match (role, self.network) {
            (Role::Main, Some(network)) => (network, &self.network_weights, self.network_input),
            (Role::Main, None) => {
                (Network::InceptionFid, &self.inception_weights, Some(self.inception_input))
            }
            (Role::Classifier, _) => (CLASSIFIER, &self.network_weights, self.network_input),
            (Role::Dino, _) => (self.dino, &self.dino_weights, None),
            (Role::Clip, _) => (self.clip, &self.clip_weights, Some(InputPath::Cmmd)),
        };
        Ok(network.open(&self.weights(network, weights)?, input, device)?)
    }

    /// The given weights of a network, or its public file.
    pub fn weights(&self, network: Network, given: &Option<WeightSource>) -> Result<WeightSource> {
        Ok(network.weights(given.as_ref(), &self.models)?)
    }

    /// The given weights, or the public file of this name.
    pub fn given_or_public(&self, given: &Option<WeightSource>, name: &str) -> Result<WeightSource> {
        match given {
            Some(source) => Ok(source.clone()),
            None => Ok(WeightSource::File(PublicFile::named(name)?.locate(&self.models)?)),
        }
    }
}

/// Open feature networks by role.
#[derive(Default)]
pub struct Networks(BTreeMap<Role, Box<dyn FeatureExtractor>>);

impl Networks {
    /// Opens the networks of these roles.
    pub fn open(roles: &[Role], options: &NetworkOptions, device: Device) -> Result<Self> {
        let open = |&role| Ok((role, options.open(role, device)?));
        Ok(Networks(roles.iter().map(open).collect::<Result<_>>()?))
    }

    /// One network.
    pub fn one(role: Role, network: Box<dyn FeatureExtractor>) -> Self {
        Networks(BTreeMap::from([(role, network)]))
    }

    /// The network of a role; it must have been opened.
    pub fn id(&self, role: Role) -> &FeatureId {
        self.0[&role].id()
    }

    /// The networks in the order of their roles.
    pub fn ids(&self) -> impl Iterator<Item = &FeatureId> {
        self.0.values().map(|network| network.id())
    }

    /// Features of images by a network.
    ///
    /// # Errors
    /// Returns an error that names the first image with features that are not finite.
    pub fn extract<'a, N: Iterator<Item = &'a str>>(
        &self,
        role: Role,
        images: &ImagesU8,
        names: impl Fn() -> N,
    ) -> Result<Features> {
        let network = &self.0[&role];
        let features = network.extract(images)?;
        let parts = [
            ("the features", Some(&features.pool)),
            ("the features of places", features.spatial.as_ref()),
            ("the class logits", features.logits.as_ref()),
        ];
        for (what, values) in parts {
            if let Some(values) = values {
                finite::check(values, names(), what, &network.id().to_string())?;
            }
        }
        Ok(features)
    }
}
