//! Feature networks by name.

use std::path::Path;
use std::str::FromStr;

use base::hint::nearest;
use tch::Device;

use crate::extractor::INCEPTION;
use crate::files::PublicFile;
use crate::{
    Clip, ClipExtractor, ClipModel, DinoExtractor, DinoSize, EfficientNetExtractor, EfficientNetSize, Error,
    FeatureExtractor, InceptionExtractor, InceptionFid, InputPath, Result, WeightSource,
};

/// A network that has features of single images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The Inception network of FID.
    InceptionFid,
    /// DINOv2's class token.
    Dino {
        /// Which.
        size: DinoSize,
        /// With four register tokens.
        registers: bool,
    },
    /// CLIP's image tower.
    Clip(ClipModel),
    /// A classifier of ImageNet-1k.
    EfficientNetLite(EfficientNetSize),
}

impl Network {
    /// All variants.
    pub fn all() -> Vec<Network> {
        let dino = |registers| DinoSize::ALL.map(|size| Network::Dino { size, registers });
        let mut all = vec![Network::InceptionFid];
        all.extend(dino(false));
        all.extend(dino(true));
        all.extend(ClipModel::ALL.map(Network::Clip));
        all.extend(EfficientNetSize::ALL.map(Network::EfficientNetLite));
        all
    }

    /// Name on the command line: `inception-fid`, `dinov2-l14-reg`, `clip-b32`,
    /// `efficientnet-lite0`.
    pub fn name(self) -> String {
        match self {
            Network::InceptionFid => INCEPTION.into(),
            Network::Dino { size, registers } => size.name(registers),
            Network::Clip(model) => model.name().into(),
            Network::EfficientNetLite(size) => size.name().into(),
        }
    }

    /// The input paths it is used with; the first is the usual one.
    pub fn input_paths(self) -> &'static [InputPath] {
        match self {
            Network::InceptionFid => &InceptionFid::INPUT_PATHS,
            Network::Dino { .. } => &DinoExtractor::INPUT_PATHS,
            Network::Clip(_) => &Clip::INPUT_PATHS,
            Network::EfficientNetLite(_) => &EfficientNetExtractor::INPUT_PATHS,
        }
    }

    /// Whether it gives logits of classes.
    pub fn has_logits(self) -> bool {
        matches!(self, Network::InceptionFid | Network::EfficientNetLite(_))
    }

    /// Whether it gives features of places in the image.
    pub fn has_spatial(self) -> bool {
        self.has_logits()
    }

    /// Whether its logits are of the 1000 classes of ImageNet-1k, in their order.
    pub fn classifies_imagenet(self) -> bool {
        matches!(self, Network::EfficientNetLite(_))
    }

    /// Its public weight file.
    ///
    /// # Errors
    /// Returns an error if none is known.
    pub fn public_file(self) -> Result<&'static PublicFile> {
        PublicFile::named(&self.name()).map_err(|_| Error::NoPublicFile { network: self.name() })
    }

    /// The weights asked for, else its public file in the weights folder.
    ///
    /// # Errors
    /// Returns an error if the public file is needed and missing, or another file has its name.
    pub fn weights(self, asked: Option<&WeightSource>, models: &Path) -> Result<WeightSource> {
        match asked {
            Some(source) => Ok(source.clone()),
            None => Ok(WeightSource::File(self.public_file()?.locate(models)?)),
        }
    }

    /// The network with its weights, behind an input path (its usual one if none is given).
    ///
    /// # Errors
    /// Returns an error if the weights cannot be read or are another network's, or the network has
    /// no such input path.
    pub fn open(
        self,
        from: &WeightSource,
        path: Option<InputPath>,
        device: Device,
    ) -> Result<Box<dyn FeatureExtractor + Send>> {
        let path = path.unwrap_or(self.input_paths()[0]);
        Ok(match self {
            Network::InceptionFid => Box::new(InceptionExtractor::open(from, path, device)?),
            Network::Dino { size, registers } => {
                Box::new(DinoExtractor::open(size, registers, from, path, device)?)
            }
            Network::Clip(model) => Box::new(ClipExtractor::open(model, from, path, device)?),
            Network::EfficientNetLite(size) => {
                Box::new(EfficientNetExtractor::open(size, from, path, device)?)
            }
        })
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let all = Network::all();
        if let Some(network) = all.iter().find(|n| n.name() == s) {
            return Ok(*network);
        }
        let names: Vec<String> = all.iter().map(|n| n.name()).collect();
        let near = nearest(s, names.iter().map(String::as_str), 3).join(", ");
        let choices = if near.is_empty() { names.join(", ") } else { near };
        Err(Error::Unknown { what: "feature network", found: s.into(), choices })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_is_found_by_its_name_and_has_its_public_file_or_none() {
        let mut without = vec![];
        for network in Network::all() {
            assert_eq!(network.name().parse::<Network>().unwrap(), network);
            match network.public_file() {
                Ok(file) => assert_eq!(file.name, network.name()),
                Err(e) => without.push(e.to_string()),
            }
        }
        assert_eq!(without.len(), 2, "{without:?}");
        assert!(without[0].contains("efficientnet-lite3") && without[1].contains("efficientnet-lite4"));
        let e = "dinov2-x14".parse::<Network>().unwrap_err().to_string();
        assert!(e.contains("dinov2-l14"), "{e}");
    }
}
