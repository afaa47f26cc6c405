//! PatchGAN (Isola et al., arXiv 1611.07004) with batch norm, under the official names `main.N.*`.
//!
//! B batch, C channels, H×W image, P×Q patches

use base::{Init, Mode, Scope};
use nn::{BatchNorm2d, Conv2d};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::leaky_relu;
use crate::{Error, Result};

/// Sizes of a [`PatchGan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchGanConfig {
    /// Channels of the first layer; each further one doubles them, up to eight times. 64 in all
    /// releases.
    pub channels: i64,
    /// Strided layers; 3 in all releases. One more at stride 1 and the output layer follow.
    pub layers: i64,
}

impl PatchGanConfig {
    /// Refuses images that are too small for the strided layers.
    pub(super) fn check(self, image_size: i64) -> Result<()> {
        let strided = u32::try_from(self.layers).ok().filter(|n| *n < 32);
        let left = strided.map_or(0, |n| (image_size >> n) - 2); // two layers at stride 1 take one each
        if self.channels < 1 || self.layers < 1 || left < 1 {
            return Err(Error::Recipe(format!(
                "patchgan discriminator: it takes at least 1 channel and 1 layer, and images of at least 3 pixels after \
                 halving them once a layer; found {} channels, {} layers and images of {image_size} pixels",
                self.channels, self.layers
            )));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Block {
    conv: Conv2d,
    norm: Option<BatchNorm2d>,
}

/// The discriminator: images → one logit for each patch.
#[derive(Debug)]
pub struct PatchGan {
    blocks: Vec<Block>,
    output: Conv2d,
}

const KERNEL: i64 = 4;
const WEIGHT: Init = Init::Normal { std: 0.02 };
const NORM_WEIGHT: Init = Init::NormalAround { mean: 1.0, std: 0.02 };

impl PatchGan {
    /// Convolution weights N(0, 0.02), their biases PyTorch's default; batch norm weights N(1,
    /// 0.02), biases 0.
    pub fn new(p: &Scope, config: &PatchGanConfig) -> Self {
        let main = p / "main";
        let width = |i: i64| config.channels << i.min(3);
        let bias = |inputs: i64| Init::torch_default(inputs * KERNEL * KERNEL);
        let first = Conv2d::new(&(&main / 0), 3, width(0), KERNEL, WEIGHT, bias(3)).with_stride(2, 1);
        let mut blocks = vec![Block { conv: first, norm: None }];
        for i in 1..=config.layers {
            let stride = if i == config.layers { 1 } else { 2 };
            let at = 3 * i - 1; // convolution, norm and activation of each block count one index each
            let conv = Conv2d::without_bias(&(&main / at), width(i - 1), width(i), KERNEL, WEIGHT);
            let norm = BatchNorm2d::new(&(&main / (at + 1)), width(i), NORM_WEIGHT);
            blocks.push(Block { conv: conv.with_stride(stride, 1), norm: Some(norm) });
        }
        let last = width(config.layers);
        let output = Conv2d::new(&(&main / (3 * config.layers + 2)), last, 1, KERNEL, WEIGHT, bias(last));
        PatchGan { blocks, output: output.with_stride(1, 1) }
    }

    /// (B, 3, H, W) in [-1, 1] → logits (B, 1, P, Q). Training uses and records batch statistics.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Tensor {
        let through = |x: Tensor, block: &Block| {
            let y = block.conv.forward(&x);
            leaky_relu(&block.norm.as_ref().map_or_else(|| y.shallow_clone(), |n| n.forward(&y, mode)))
        };
        self.output.forward(&self.blocks.iter().fold(images.shallow_clone(), through))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Build, Vars};
    use tch::{Device, Kind};

    #[test]
    fn the_released_size_has_the_published_parameter_count_and_patch_grid() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let d = PatchGan::new(&vars.root(), &PatchGanConfig { channels: 64, layers: 3 });
        assert_eq!(vars.num_parameters(), 2_765_633);
        let x = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
        assert_eq!(tch::no_grad(|| d.forward(&x, Mode::Eval)).size(), [1, 1, 6, 6]);
        assert!(vars.get("main.11.bias").is_some() && vars.get("main.9.running_var").is_some());
    }
}
