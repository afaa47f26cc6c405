//! Interface of a feature network to metrics.

use base::ImagesU8;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::Result;

/// Features of one batch, (B, D) fp32 on the CPU each.
#[derive(Debug)]
pub struct Features {
    /// The features that distances are computed from.
    pub pool: Tensor,
    /// Class logits, where the network has them.
    pub logits: Option<Tensor>,
    /// Features of places in the image, flattened, where the network has them.
    pub spatial: Option<Tensor>,
}

/// A frozen network as a function of stored images.
pub trait FeatureExtractor {
    /// Names network, weights' SHA-256, input path and layer: values may be compared only where ids
    /// agree.
    fn id(&self) -> &FeatureId;

    /// Features of images of any one size; the network's own resizing is part of it.
    ///
    /// # Errors
    /// Returns an error if the network cannot take the images, or libtorch fails.
    fn extract(&self, images: &ImagesU8) -> Result<Features>;
}

/// Identity of features: two sets are comparable only if these agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureId {
    /// The network, and whose weights it has where they are recognised.
    pub network: String,
    /// SHA-256 of the weight file; `random:SEED` for weights that come from no file.
    pub weights_sha256: String,
    /// Path from stored images to the network's input.
    pub input_path: String,
    /// Output of the network.
    pub layer: String,
    /// False for weights that no published number was made with.
    pub comparable: bool,
}

impl FeatureId {
    /// Whether they are of the Inception network of FID, whatever its weights.
    pub fn is_inception(&self) -> bool {
        self.network.split(' ').next() == Some(INCEPTION)
    }
}

/// Name of FID's Inception network.
pub(crate) const INCEPTION: &str = "inception-fid";

impl std::fmt::Display for FeatureId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let FeatureId { network, weights_sha256, input_path, layer, comparable } = self;
        let short: String = weights_sha256.chars().take(16).collect();
        write!(f, "{network}, weights {short}, input {input_path}, {layer}")?;
        if *comparable { Ok(()) } else { f.write_str(" (not comparable)") }
    }
}
