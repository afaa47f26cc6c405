//! A small VGG-like classifier that is trained on one's own labelled images (`gen train-features`)
//! where no public feature network is at hand: the distance of its features is a perceptual loss
//! (Johnson et al., arXiv 1603.08155, with LPIPS's unit-length features, arXiv 1801.03924). There
//! is no public checkpoint of it.
//!
//! B batch, C channels, H×W pixels of a stage, K classes

use std::path::Path;

use base::config::Document;
use base::{Build, Init, Mode, Precision, Scope, TensorKind, Vars};
use nn::{BatchNorm2d, Conv2d, Linear};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use weights::{CONFIG_FILE, KeyMap, WEIGHTS_FILE};

use crate::{Error, Result};

/// Sizes of a [`FeatureCnn`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureCnnConfig {
    /// Side of the square images it was trained on, pixels. Other sizes work.
    pub image_size: i64,
    /// Channels of each stage; each stage but the first starts with half the side of the one
    /// before.
    pub widths: Vec<i64>,
    /// Its classes, by the data's indices, ascending.
    pub classes: Vec<i64>,
}

impl FeatureCnnConfig {
    /// Reads a `config.yaml`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not a configuration.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(Document::read(path)?.typed()?)
    }
}

/// Convolution 3×3, batch norm, ReLU.
#[derive(Debug)]
struct Layer {
    conv: Conv2d,
    norm: BatchNorm2d,
}

impl Layer {
    fn new(p: &Scope, inputs: i64, outputs: i64) -> Self {
        let weight = Init::Normal { std: (2.0 / (9 * inputs) as f64).sqrt() }; // He et al., for ReLU
        Layer {
            conv: Conv2d::without_bias(&(p / "conv"), inputs, outputs, 3, weight),
            norm: BatchNorm2d::new(&(p / "norm"), outputs, Init::Const(1.0)),
        }
    }

    /// Evaluation folds the norm into the convolution: one pass over the pixels instead of three.
    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        match mode {
            Mode::Train => self.norm.forward(&self.conv.forward(x), mode).relu(),
            Mode::Eval => {
                let (scale, shift) = self.norm.affine();
                let weight = (self.conv.weight() * scale.view([-1, 1, 1, 1])).to_kind(x.kind());
                x.conv2d(&weight, Some(shift.to_kind(x.kind())), [1, 1], [1, 1], [1, 1], 1).relu()
            }
        }
    }
}

/// The classifier.
#[derive(Debug)]
pub struct FeatureCnn {
    stages: Vec<[Layer; 2]>,
    head: Linear,
}

impl FeatureCnn {
    /// Variables `stages.I.{0,1}.{conv,norm}.*` and `head.*`.
    pub fn new(p: &Scope, config: &FeatureCnnConfig) -> Self {
        let mut inputs = 3;
        let stage = |(i, &width): (usize, &i64)| {
            let p = p / "stages" / i;
            let layers = [Layer::new(&(&p / 0), inputs, width), Layer::new(&(&p / 1), width, width)];
            inputs = width;
            layers
        };
        let stages = config.widths.iter().enumerate().map(stage).collect();
        let classes = config.classes.len() as i64;
        let weight = Init::Normal { std: 0.01 };
        FeatureCnn {
            stages,
            head: Linear::new(&(p / "head"), inputs, classes, weight, Some(Init::Const(0.0))),
        }
    }

    /// A directory that `gen train-features` wrote, frozen: `config.yaml` and
    /// `weights.safetensors`.
    ///
    /// # Errors
    /// Returns an error if a file is missing or does not fit.
    pub fn open(dir: &Path, device: Device, precision: Precision) -> Result<(Self, FeatureCnnConfig)> {
        let config = FeatureCnnConfig::read(&dir.join(CONFIG_FILE))?;
        let vars = Vars::new(device, precision.kind(), Build::Empty);
        let model = FeatureCnn::new(&vars.root(), &config);
        let path = dir.join(WEIGHTS_FILE);
        weights::fill(&vars, &path, &KeyMap::identity(), Vec::new).map_err(|source| Error::Load {
            network: "the feature network".into(),
            path,
            source: Box::new(source),
        })?;
        Ok((model, config))
    }

    /// (B, 3, H, W) in [-1, 1] → the output of every stage, (B, C, H, W), finest first.
    pub fn features(&self, images: &Tensor, mode: Mode) -> Vec<Tensor> {
        let mut maps: Vec<Tensor> = vec![];
        for [first, second] in &self.stages {
            let x = match maps.last() {
                Some(finer) => finer.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false),
                None => images.shallow_clone(),
            };
            maps.push(second.forward(&first.forward(&x, mode), mode));
        }
        maps
    }

    /// (B, 3, H, W) in [-1, 1] → logits (B, K), fp32.
    pub fn logits(&self, images: &Tensor, mode: Mode) -> Tensor {
        let maps = self.features(images, mode);
        let last = maps.last().expect("a network has stages");
        let pooled = last.mean_dim([2i64, 3].as_slice(), false, Kind::Float); // (B, C)
        self.head.forward(&pooled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_the_norm_changes_nothing() {
        tch::manual_seed(1);
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let config = FeatureCnnConfig { image_size: 16, widths: vec![8, 16], classes: vec![0, 3] };
        let net = FeatureCnn::new(&vars.root(), &config);
        let x = Tensor::randn([4, 3, 16, 16], (Kind::Float, Device::Cpu));
        let _ = tch::no_grad(|| net.logits(&x, Mode::Train)); // moves the running statistics
        let layer = &net.stages[0][0];
        let plain = tch::no_grad(|| layer.norm.forward(&layer.conv.forward(&x), Mode::Eval).relu());
        let folded = tch::no_grad(|| layer.forward(&x, Mode::Eval));
        assert!((plain - folded).abs().max().double_value(&[]) < 1e-5);
        assert_eq!(net.features(&x, Mode::Eval)[1].size(), [4, 16, 8, 8]);
        assert_eq!(net.logits(&x, Mode::Eval).size(), [4, 2]);
    }
}
