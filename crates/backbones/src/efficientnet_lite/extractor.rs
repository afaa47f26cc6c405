//! EfficientNet-Lite as metrics see it.

use base::{ImagesU8, Precision};
use tch::{Device, Kind, Tensor};

use super::{EfficientNetLite, EfficientNetSize};
use crate::resize::pillow_bicubic;
use crate::{FeatureExtractor, FeatureId, Features, InputPath, Result, WeightSource};

/// Number of channels in spatial features, as many as sFID reads of Inception's.
const SPATIAL_CHANNELS: i64 = 7;

/// The classifier behind one input path: pooled features (B, 1280), logits (B, 1000), and the first
/// 7 channels of the last block at stride 16, flattened rows, columns, channels.
#[derive(Debug)]
pub struct EfficientNetExtractor {
    net: EfficientNetLite,
    size: EfficientNetSize,
    path: InputPath,
    device: Device,
    id: FeatureId,
}

impl EfficientNetExtractor {
    /// The input paths it is used with; the first is the usual one.
    pub const INPUT_PATHS: [InputPath; 2] = [InputPath::Pil, InputPath::Stored];

    /// Opens a published network.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is of another network, or the input path is
    /// not one of [`EfficientNetExtractor::INPUT_PATHS`].
    pub fn open(
        size: EfficientNetSize,
        from: &WeightSource,
        path: InputPath,
        device: Device,
    ) -> Result<Self> {
        let path = path.among(&Self::INPUT_PATHS)?;
        let (net, provenance) = EfficientNetLite::open_named(from, size, device, Precision::Fp32)?;
        let id = FeatureId {
            network: size.name().into(),
            weights_sha256: provenance.sha256,
            input_path: path.to_string(),
            layer: "average pool".into(),
            comparable: provenance.comparable,
        };
        Ok(EfficientNetExtractor { net, size, path, device, id })
    }

    fn prepare(&self, images: &ImagesU8) -> Result<Tensor> {
        let float = |t: &Tensor| t.to_device(self.device).to_kind(Kind::Float);
        let side = self.size.resolution();
        Ok(EfficientNetLite::normalize(&match self.path {
            InputPath::Stored => float(images.tensor()),
            _ => float(pillow_bicubic(images, side, side)?.tensor()),
        }))
    }
}

impl FeatureExtractor for EfficientNetExtractor {
    fn id(&self) -> &FeatureId {
        &self.id
    }

    fn extract(&self, images: &ImagesU8) -> Result<Features> {
        let x = self.prepare(images)?;
        let read = self.size.scales()[2] + 1; // behind the stem
        let (mut seen, mut spatial) = (0, None);
        let out = tch::no_grad(|| {
            self.net.forward_visiting(&x, |map| {
                if seen == read {
                    let nhwc = map.narrow(1, 0, SPATIAL_CHANNELS).permute([0, 2, 3, 1]);
                    spatial = Some(nhwc.reshape([map.size()[0], -1]));
                }
                seen += 1;
            })
        });
        let cpu = |t: Tensor| t.to_device(Device::Cpu);
        Ok(Features { pool: cpu(out.pool), logits: Some(cpu(out.logits)), spatial: spatial.map(cpu) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_of_the_resized_image_and_of_places_in_rows_columns_channels() {
        let source = WeightSource::Random { seed: 3 };
        let open =
            |path| EfficientNetExtractor::open(EfficientNetSize::Lite0, &source, path, Device::Cpu).unwrap();
        tch::manual_seed(1);
        let random = (Tensor::rand([2, 3, 40, 64], (Kind::Float, Device::Cpu)) * 255.0).to_kind(Kind::Uint8);
        let images = ImagesU8::new(random).unwrap();
        let stored = open(InputPath::Stored).extract(&images).unwrap();
        assert_eq!(stored.pool.size(), [2, 1280]);
        assert_eq!(stored.logits.unwrap().size(), [2, 1000]);
        // 40x64 pixels are 3x4 places at stride 16.
        let net =
            EfficientNetLite::open(&source, EfficientNetSize::Lite0, Device::Cpu, Precision::Fp32).unwrap();
        let x = EfficientNetLite::normalize(&images.tensor().to_kind(Kind::Float));
        let map = tch::no_grad(|| net.features(&x, &[10]).remove(0));
        assert_eq!(map.size(), [2, 112, 3, 4]);
        let spatial = stored.spatial.unwrap();
        assert_eq!(spatial.size(), [2, 3 * 4 * 7]);
        // Row 1, column 2, channel 5.
        assert_eq!(spatial.double_value(&[1, 6 * 7 + 5]), map.double_value(&[1, 5, 1, 2]));

        let usual = open(InputPath::Pil);
        let enlarged = pillow_bicubic(&images, 224, 224).unwrap();
        let (direct, by_hand) =
            (usual.extract(&images).unwrap(), open(InputPath::Stored).extract(&enlarged).unwrap());
        assert_eq!(direct.pool, by_hand.pool);
        assert!(!usual.id().comparable && usual.id().network == "efficientnet-lite0");
    }
}
