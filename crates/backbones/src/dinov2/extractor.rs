//! DINOv2 as metrics see it.

use base::ImagesU8;
use tch::{Device, Kind, Tensor};

use super::{DinoConfig, DinoSize, DinoV2, normalized};
use crate::resize::{pillow_bicubic, tf1_bilinear};
use crate::{FeatureExtractor, FeatureId, Features, InputPath, Result, WeightSource};

/// The network as metrics see it: the class token of 224×224 pixels.
#[derive(Debug)]
pub struct DinoExtractor {
    net: DinoV2,
    path: InputPath,
    id: FeatureId,
}

impl DinoExtractor {
    /// The input paths it is used with; the first is the usual one.
    pub const INPUT_PATHS: [InputPath; 2] = [InputPath::Pil, InputPath::Tf];
    const SIDE: i64 = 224;

    /// Opens a published network.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is of another network, or the input path is
    /// not one of [`DinoExtractor::INPUT_PATHS`].
    pub fn open(
        size: DinoSize,
        registers: bool,
        from: &WeightSource,
        path: InputPath,
        device: Device,
    ) -> Result<Self> {
        let path = path.among(&Self::INPUT_PATHS)?;
        let name = size.name(registers);
        let config = DinoConfig::published(size, registers);
        let (net, provenance) = DinoV2::open_named(&name, from, &config, device)?;
        let id = FeatureId {
            network: name,
            weights_sha256: provenance.sha256,
            input_path: path.to_string(),
            layer: "class token".into(),
            comparable: provenance.comparable,
        };
        Ok(DinoExtractor { net, path, id })
    }

    fn prepare(&self, images: &ImagesU8) -> Result<Tensor> {
        let float = |t: &Tensor| t.to_device(self.net.device).to_kind(Kind::Float);
        let x = match self.path {
            InputPath::Tf => tf1_bilinear(&float(images.tensor()), Self::SIDE, Self::SIDE),
            _ => float(pillow_bicubic(images, Self::SIDE, Self::SIDE)?.tensor()),
        };
        Ok(normalized(&(x / 255.0)))
    }
}

impl FeatureExtractor for DinoExtractor {
    fn id(&self) -> &FeatureId {
        &self.id
    }

    fn extract(&self, images: &ImagesU8) -> Result<Features> {
        let x = self.prepare(images)?;
        let tokens = tch::no_grad(|| self.net.forward(&x))?;
        Ok(Features { pool: tokens.class.contiguous().to_device(Device::Cpu), logits: None, spatial: None })
    }
}
