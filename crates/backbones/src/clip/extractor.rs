//! CLIP's image tower as metrics see it.

use base::ImagesU8;
use tch::Device;

use super::{Clip, ClipModel};
use crate::{FeatureExtractor, FeatureId, Features, InputPath, Result, WeightSource};

/// Projected image features of length 1.
#[derive(Debug)]
pub struct ClipExtractor {
    clip: Clip,
    path: InputPath,
    id: FeatureId,
}

impl ClipExtractor {
    /// Opens a published model.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is of another network, or the input path is
    /// not one of [`Clip::INPUT_PATHS`].
    pub fn open(model: ClipModel, from: &WeightSource, path: InputPath, device: Device) -> Result<Self> {
        let path = path.among(&Clip::INPUT_PATHS)?;
        let (clip, provenance) = Clip::open_named(model.name(), from, &model.config(), device)?;
        let id = FeatureId {
            network: model.name().into(),
            weights_sha256: provenance.sha256,
            input_path: path.to_string(),
            layer: "image embedding".into(),
            comparable: provenance.comparable,
        };
        Ok(ClipExtractor { clip, path, id })
    }

    /// The model, for the features of texts.
    pub fn clip(&self) -> &Clip {
        &self.clip
    }
}

impl FeatureExtractor for ClipExtractor {
    fn id(&self) -> &FeatureId {
        &self.id
    }

    fn extract(&self, images: &ImagesU8) -> Result<Features> {
        let features = self.clip.image_features(&self.clip.prepare(images, self.path)?)?;
        Ok(Features { pool: features.to_device(Device::Cpu), logits: None, spatial: None })
    }
}
