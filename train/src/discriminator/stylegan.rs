//! The residual discriminator of StyleGAN2 (Karras et al., arXiv 1912.04958, figure 7c) as in
//! MaskGIT and GigaTok's `discriminator_stylegan.py`, under the official names, without minibatch
//! statistics and equalised learning rate, with PyTorch's default initialisation. No released model
//! used it.
//!
//! B batch, C channels, H×W image, R side in pixels

use base::{Init, Scope};
use nn::{Conv2d, Linear};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::leaky_relu;
use crate::{Error, Result};

/// Sizes of a [`StyleGan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StyleGanConfig {
    /// Channels at 32×32 and coarser; halved with each doubling of the side. 512 as published.
    pub channels: i64,
}

impl Default for StyleGanConfig {
    fn default() -> Self {
        StyleGanConfig { channels: 512 }
    }
}

const FULL_WIDTH: i64 = 32;
const FINAL: i64 = 4;

impl StyleGanConfig {
    /// Channels at a side.
    pub(crate) fn at(self, side: i64) -> i64 {
        (self.channels * FULL_WIDTH / side).clamp(1, self.channels)
    }

    /// Refuses images that cannot be halved down to 4×4.
    pub(super) fn check(self, image_size: i64) -> Result<()> {
        if self.channels < 1 || image_size < FINAL || image_size.count_ones() != 1 {
            return Err(Error::Recipe(format!(
                "stylegan discriminator: it takes at least 1 channel and images whose side is a power of two of 4 or \
                 more; found {} and {image_size}",
                self.channels
            )));
        }
        Ok(())
    }
}

/// The discriminator: images → one logit each.
#[derive(Debug)]
pub struct StyleGan {
    stem: Conv2d,
    blocks: Vec<Block>,
    last: Conv2d,
    hidden: Linear,
    output: Linear,
}

fn conv(p: Scope, inputs: i64, outputs: i64, kernel: i64) -> Conv2d {
    let init = Init::torch_default(inputs * kernel * kernel);
    Conv2d::new(&p, inputs, outputs, kernel, init, init)
}

impl StyleGan {
    /// For images of side `image_size`, a power of two.
    pub fn new(p: &Scope, config: &StyleGanConfig, image_size: i64) -> Self {
        let sides: Vec<i64> =
            std::iter::successors(Some(image_size), |r| Some(r / 2)).take_while(|r| *r >= FINAL).collect();
        // `blocks` holds the first convolution and its activation before the blocks.
        let block = |(i, pair): (usize, &[i64])| {
            Block::new(&(p / "blocks" / (i + 2)), config.at(pair[0]), config.at(pair[1]))
        };
        let width = config.at(FINAL);
        let linear = |p: Scope, inputs: i64, outputs: i64| {
            let init = Init::torch_default(inputs);
            Linear::new(&p, inputs, outputs, init, Some(init))
        };
        StyleGan {
            stem: conv(p / "blocks" / 0, 3, config.at(image_size), 3),
            blocks: sides.windows(2).enumerate().map(block).collect(),
            last: conv(p / "final_conv" / 0, width, width, 3),
            hidden: linear(p / "final_linear" / 0, width * FINAL * FINAL, width),
            output: linear(p / "final_linear" / 2, width, 1),
        }
    }

    /// (B, 3, R, R) in [-1, 1] → logits (B, 1).
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let x = leaky_relu(&self.stem.forward(images));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(&x));
        let x = leaky_relu(&self.last.forward(&x)).flatten(1, 3);
        self.output.forward(&leaky_relu(&self.hidden.forward(&x)))
    }
}

/// Two convolutions, then blur and a strided one, beside a strided pointwise shortcut: (B, C, R, R)
/// → (B, C', R/2, R/2).
#[derive(Debug)]
struct Block {
    shortcut: Conv2d,
    first: Conv2d,
    second: Conv2d,
    kernel: Tensor, // (3)
    down: Conv2d,
}

impl Block {
    fn new(p: &Scope, inputs: i64, outputs: i64) -> Self {
        let (net, down) = (p / "net", p / "downsample");
        let kernel = (&down / 0).buffer("f", &[3], Kind::Float, Init::Const(1.0));
        if p.vars().is_random() {
            let _ = kernel.narrow(0, 1, 1).fill_(2.0);
        }
        Block {
            shortcut: conv(p / "conv_res", inputs, outputs, 1).with_stride(2, 0),
            first: conv(&net / 0, inputs, outputs, 3),
            second: conv(&net / 2, outputs, outputs, 3),
            down: conv(&down / 1, outputs, outputs, 3).with_stride(2, 1),
            kernel,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let y = leaky_relu(&self.second.forward(&leaky_relu(&self.first.forward(x))));
        let y = self.down.forward(&self.blur(&y));
        (y + self.shortcut.forward(x)) * std::f64::consts::FRAC_1_SQRT_2
    }

    /// Separable 1-2-1 blur of each channel, mirrored at the edges.
    fn blur(&self, x: &Tensor) -> Tensor {
        let c = x.size()[1];
        let kernel = self.kernel.outer(&self.kernel);
        let kernel = (&kernel / kernel.abs().sum(Kind::Float)).to_kind(x.kind()).expand([c, 1, 3, 3], false);
        x.reflection_pad2d([1, 1, 1, 1]).conv2d(&kernel, None::<Tensor>, 1, 0, 1, c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Build, Vars};
    use tch::Device;

    #[test]
    fn widths_and_names_are_the_published_ones() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
        let _ = StyleGan::new(&vars.root(), &StyleGanConfig::default(), 256);
        let shape = |name: &str| vars.get(name).unwrap_or_else(|| panic!("no {name}")).size();
        assert_eq!(shape("blocks.0.weight"), [64, 3, 3, 3]);
        assert_eq!(shape("blocks.2.conv_res.weight"), [128, 64, 1, 1]);
        assert_eq!(shape("blocks.4.net.0.weight"), [512, 256, 3, 3]);
        assert_eq!(shape("blocks.7.downsample.1.weight"), [512, 512, 3, 3]);
        assert_eq!(shape("blocks.7.downsample.0.f"), [3]);
        assert_eq!(shape("final_linear.0.weight"), [512, 8192]);
        // From the layers, by hand: 256 → 4 in six halvings.
        let block = |i: i64, o: i64| (i * o + o) + (9 * i * o + o) + 2 * (9 * o * o + o);
        let blocks = block(64, 128) + block(128, 256) + block(256, 512) + 3 * block(512, 512);
        let ends = (27 * 64 + 64) + (9 * 512 * 512 + 512) + (8192 * 512 + 512) + 513;
        assert_eq!(vars.num_parameters(), blocks + ends);
    }

    #[test]
    fn blurring_keeps_constants_and_gradients_pass_to_the_image() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let d = StyleGan::new(&vars.root(), &StyleGanConfig { channels: 8 }, 16);
        let one = Tensor::ones([1, 8, 6, 6], (Kind::Float, Device::Cpu));
        assert!((d.blocks[0].blur(&one) - 1.0).abs().max().double_value(&[]) < 1e-6);
        let x = Tensor::rand([2, 3, 16, 16], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let logits = d.forward(&x);
        assert_eq!(logits.size(), [2, 1]);
        let gradient = Tensor::run_backward(&[logits.sum(Kind::Float)], &[&x], false, false).remove(0);
        assert!(gradient.abs().min().double_value(&[]) > 0.0);
    }

    /// The gradient by a weight, and that of the image gradient's length by it, against central
    /// differences in fp64.
    #[test]
    fn gradients_of_both_orders_equal_finite_differences() {
        let options = (Kind::Double, Device::Cpu);
        tch::manual_seed(3);
        let vars = Vars::new(Device::Cpu, Kind::Double, Build::Random);
        let d = StyleGan::new(&vars.root(), &StyleGanConfig { channels: 6 }, 8);
        vars.set_requires_grad(true);
        let weight = vars.get("blocks.2.net.2.weight").unwrap();
        let x = Tensor::randn([2, 3, 8, 8], options).set_requires_grad(true);
        let measure = || {
            let sum = d.forward(&x).sum(Kind::Double);
            let gradient = Tensor::run_backward(&[&sum], &[&x], true, true).remove(0);
            [sum, gradient.square().sum(Kind::Double)]
        };
        let direction = Tensor::randn_like(&weight);
        let step =
            |h: f64| tch::no_grad(|| weight.shallow_clone().set_data(&(weight.detach() + &direction * h)));
        let h = 1e-6;
        let by_weight = |f: &Tensor| {
            let g = Tensor::run_backward(&[f], &[&weight], true, false).remove(0);
            (g * &direction).sum(Kind::Double).double_value(&[])
        };
        let expected = measure().map(|f| by_weight(&f));
        step(h);
        let above = measure().map(|f| f.double_value(&[]));
        step(-2.0 * h);
        let below = measure().map(|f| f.double_value(&[]));
        for i in 0..2 {
            let found = (above[i] - below[i]) / (2.0 * h);
            assert!((found - expected[i]).abs() < 1e-5 * expected[i].abs(), "{i}: {found}, {}", expected[i]);
        }
    }
}
