//! The discriminator of Projected GANs (Sauer et al., arXiv 2111.01007): features of a frozen
//! EfficientNet-Lite at four depths, mixed over channels and scales by fixed random convolutions,
//! and a small trained head at each scale.
//!
//! Unlike in the published code, heads have group norms instead of batch norms, so that an image's
//! logits do not depend on the other images or the size of a micro-batch; convolutions mix scales
//! before their output is enlarged, not after, at a quarter of the cost; and they are 3×3 as in
//! the paper, not 1×1.
//!
//! B batch, C channels, H×W positions

use backbones::resize::half_pixel_bilinear;
use backbones::{EfficientNetLite, EfficientNetSize, WeightSource, efficientnet_weights};
use base::{Init, Mode, Precision, Scope};
use nn::GroupNorm;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::leaky_relu;
use super::spectral::SpectralWeight;
use crate::{Error, Result};

/// Sizes of a [`Projected`]; by default the published ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectedConfig {
    /// The frozen network.
    pub size: EfficientNetSize,
    /// Its weights. Null: the public file in the weights folder (`gen fetch`).
    pub weights: Option<WeightSource>,
    /// Side of its input images, pixels. 224 as published; for 64×64 images 128 costs a third and
    /// 64 a twelfth of that.
    pub image_size: i64,
    /// Channels of the finest mixed features; coarser ones have up to four times as many, heads up
    /// to eight times. 64 as published.
    pub channels: i64,
}

impl Default for ProjectedConfig {
    fn default() -> Self {
        ProjectedConfig { size: EfficientNetSize::Lite0, weights: None, image_size: 224, channels: 64 }
    }
}

/// Groups of the heads' norms.
const GROUPS: i64 = 8;

/// The coarsest features' stride.
const STRIDE: i64 = 32;

/// Largest side of a head's final map.
const LEAST: i64 = 8;

/// Kernel of the heads' convolutions.
const KERNEL: i64 = 4;

impl ProjectedConfig {
    /// Refuses sizes that cannot be built.
    pub(super) fn check(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Recipe(format!("projected discriminator: {message}")));
        if !(STRIDE..=1024).contains(&self.image_size) || self.image_size % STRIDE != 0 {
            return fail(format!(
                "image_size must be a multiple of {STRIDE} from {STRIDE} to 1024, found {}",
                self.image_size
            ));
        }
        if !(GROUPS..=512).contains(&self.channels) || self.channels % GROUPS != 0 {
            let found = self.channels;
            return fail(format!(
                "channels must be a multiple of {GROUPS} from {GROUPS} to 512, found {found}"
            ));
        }
        Ok(())
    }

    /// Sizes of each scale, finest first.
    pub(crate) fn scales(&self) -> [ScaleShape; 4] {
        let channels = self.size.channels();
        [0, 1, 2, 3].map(|i| {
            let block = self.size.scales()[i];
            let mixed = self.channels << i;
            let side = self.image_size / (4 << i);
            ScaleShape {
                block,
                side,
                features: channels[block],
                mixed,
                output: if i == 0 { mixed } else { mixed / 2 },
                head: self.head(2 * side),
            }
        })
    }

    /// Output channels of a head's blocks, for maps of this side.
    fn head(&self, side: i64) -> Vec<i64> {
        let mut blocks = 1;
        while side >> blocks > LEAST {
            blocks += 1;
        }
        (0..blocks).map(|i| ((8 * self.channels) >> (blocks - 1 - i)).max(self.channels)).collect()
    }
}

/// Sizes at one scale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScaleShape {
    /// Block of the frozen network whose output is mixed.
    pub block: usize,
    /// Side of that output.
    pub side: i64,
    /// Its channels.
    pub features: i64,
    /// Channels after mixing them.
    pub mixed: i64,
    /// Channels after mixing with the coarser scales, at twice the side.
    pub output: i64,
    /// Output channels of the head's blocks, each of which halves the side.
    pub head: Vec<i64>,
}

impl ScaleShape {
    /// Kernel of the head's last convolution.
    pub(crate) fn last_kernel(&self) -> i64 {
        KERNEL.min((2 * self.side) >> self.head.len())
    }
}

/// The discriminator: images to logits of four scales.
#[derive(Debug)]
pub struct Projected {
    network: EfficientNetLite,
    blocks: [usize; 4],
    scales: Scales,
    size: i64,
}

impl Projected {
    /// Initialises mixing and heads under `p`; the frozen network computes in `precision`.
    ///
    /// # Errors
    /// Returns an error if the frozen network's weights are missing or do not fit.
    pub fn new(p: &Scope, config: &ProjectedConfig, precision: Precision) -> Result<Self> {
        let weights = efficientnet_weights(config.weights.as_ref(), config.size)?;
        Ok(Projected {
            network: EfficientNetLite::open(&weights, config.size, p.vars().device(), precision)?,
            blocks: config.size.scales(),
            scales: Scales::new(p, config),
            size: config.image_size,
        })
    }

    /// Features to mix, finest first: (B, 3, H, W) in [-1, 1] → (B, C, H', W') each.
    fn features(&self, images: &Tensor) -> Vec<Tensor> {
        let images = images.to_kind(Kind::Float);
        let shown = match images.size()[2..] == [self.size; 2] {
            true => images,
            false => half_pixel_bilinear(&images, self.size, self.size),
        };
        self.network.features(&EfficientNetLite::scaled(&shown), &self.blocks)
    }

    /// (B, 3, H, W) in [-1, 1] → logits (B, positions of all scales); the heads compute in
    /// `kind`. In training mode, one power iteration of every spectral norm.
    pub fn forward(&self, images: &Tensor, kind: Kind, mode: Mode) -> Tensor {
        self.scales.forward(&self.features(images), kind, mode)
    }
}

/// All layers after the frozen network.
#[derive(Debug)]
pub(crate) struct Scales(Vec<Scale>);

impl Scales {
    /// Variables under `p`: buffers `mixing.{0…3}.{channels, scales}`, `heads.{0…3}`.
    pub(crate) fn new(p: &Scope, config: &ProjectedConfig) -> Self {
        Scales(config.scales().iter().enumerate().map(|(i, shape)| Scale::new(p, i, shape)).collect())
    }

    fn forward(&self, features: &[Tensor], kind: Kind, mode: Mode) -> Tensor {
        let mut coarser: Option<Tensor> = None;
        let mut logits = vec![];
        for (scale, map) in self.0.iter().zip(features).rev() {
            let mixed = scale.mix(&map.to_kind(kind), coarser.as_ref());
            logits.push(scale.head.forward(&mixed, mode));
            coarser = Some(mixed);
        }
        logits.reverse();
        Tensor::cat(&logits, 1)
    }
}

/// One scale.
#[derive(Debug)]
struct Scale {
    channels: Tensor, // (mixed, features, 1, 1)
    scales: Tensor,   // (output, mixed, 3, 3)
    head: Head,
}

impl Scale {
    fn new(p: &Scope, i: usize, shape: &ScaleShape) -> Self {
        let mixing = p / "mixing" / i;
        // Keeps variances.
        let fixed = |name: &str, outputs: i64, inputs: i64, kernel: i64| {
            let std = 1.0 / ((inputs * kernel * kernel) as f64).sqrt();
            mixing.buffer(name, &[outputs, inputs, kernel, kernel], Kind::Float, Init::Normal { std })
        };
        Scale {
            channels: fixed("channels", shape.mixed, shape.features, 1),
            scales: fixed("scales", shape.output, shape.mixed, 3),
            head: Head::new(&(p / "heads" / i), shape),
        }
    }

    /// The network's map (B, features, H, W) and the next coarser scale's result (B, mixed, H, W)
    /// → (B, output, 2H, 2W).
    fn mix(&self, map: &Tensor, coarser: Option<&Tensor>) -> Tensor {
        let kind = map.kind();
        let mut x = map.conv2d(&self.channels.to_kind(kind), None::<Tensor>, 1, 0, 1, 1);
        if let Some(coarser) = coarser {
            x += coarser;
        }
        let x = x.conv2d(&self.scales.to_kind(kind), None::<Tensor>, 1, 1, 1, 1);
        let side = x.size()[2];
        half_pixel_bilinear(&x, 2 * side, 2 * side)
    }
}

/// Strided convolutions down to a small map, and one to logits.
#[derive(Debug)]
struct Head {
    blocks: Vec<Down>,
    output: SpectralWeight,
}

impl Head {
    fn new(p: &Scope, shape: &ScaleShape) -> Self {
        let inputs = std::iter::once(&shape.output).chain(&shape.head);
        let block = |(i, (inputs, outputs)): (usize, (&i64, &i64))| Down::new(&(p / i), *inputs, *outputs);
        let kernel = shape.last_kernel();
        let width = shape.head.last().copied().unwrap_or(shape.output);
        Head {
            blocks: inputs.zip(&shape.head).enumerate().map(block).collect(),
            output: SpectralWeight::new(&(p / "output"), &[1, width, kernel, kernel]),
        }
    }

    /// (B, C, H, W) → (B, positions).
    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let x = self.blocks.iter().fold(x.shallow_clone(), |x, block| block.forward(&x, mode));
        let weight = self.output.normalized(mode).to_kind(x.kind());
        x.conv2d(&weight, None::<Tensor>, 1, 0, 1, 1).flatten(1, -1)
    }
}

/// Strided convolution, group norm, leaky ReLU: (B, C, H, W) → (B, C', H/2, W/2).
#[derive(Debug)]
struct Down {
    weight: SpectralWeight,
    norm: GroupNorm,
}

impl Down {
    /// The norm has a bias, so the convolution needs none.
    fn new(p: &Scope, inputs: i64, outputs: i64) -> Self {
        Down {
            weight: SpectralWeight::new(&(p / "conv"), &[outputs, inputs, KERNEL, KERNEL]),
            norm: GroupNorm::new(&(p / "norm"), outputs, GROUPS),
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let weight = self.weight.normalized(mode).to_kind(x.kind());
        leaky_relu(&self.norm.forward(&x.conv2d(&weight, None::<Tensor>, 2, 1, 1, 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Build, Vars};
    use tch::Device;

    fn tiny() -> (Vars, Projected) {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let weights = Some(WeightSource::Random { seed: 1 });
        let config = ProjectedConfig { weights, image_size: 64, channels: 8, ..ProjectedConfig::default() };
        config.check().unwrap();
        let network = Projected::new(&vars.root(), &config, Precision::Fp32).unwrap();
        (vars, network)
    }

    fn images(side: i64) -> Tensor {
        Tensor::rand([2, 3, side, side], (Kind::Float, Device::Cpu)) * 2.0 - 1.0
    }

    #[test]
    fn the_published_size_has_the_published_heads() {
        let shapes = ProjectedConfig::default().scales();
        let of = |f: fn(&ScaleShape) -> i64| shapes.each_ref().map(f);
        assert_eq!(of(|s| s.features), [24, 40, 112, 320]);
        assert_eq!(of(|s| s.mixed), [64, 128, 256, 512]);
        assert_eq!(of(|s| s.output), [64, 64, 128, 256]);
        assert_eq!(of(|s| 2 * s.side), [112, 56, 28, 14]);
        assert_eq!(shapes[0].head, [64, 128, 256, 512]);
        assert_eq!(shapes[3].head, [512]);
        assert_eq!(of(ScaleShape::last_kernel), [4; 4]);
    }

    #[test]
    fn gradients_pass_through_what_is_frozen_and_stay_out_of_it() {
        let (vars, network) = tiny();
        vars.set_requires_grad(true);
        let x = images(32).set_requires_grad(true);
        let logits = network.forward(&x, Kind::Float, Mode::Train);
        assert_eq!(logits.size(), [2, 25 + 25 + 1 + 1]);
        logits.square().sum(Kind::Float).backward();
        assert!(x.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);
        for v in vars.all() {
            assert_eq!(v.tensor.grad().defined(), !v.buffer, "{}", v.name);
        }
        let fixed = vars.all().into_iter().filter(|v| v.buffer && v.name.starts_with("mixing"));
        assert_eq!(fixed.count(), 8);
        // No weight of the network and none of the mixing records anything.
        let maps = network.features(&images(32));
        let mixed = network.scales.0[3].mix(&maps[3], None);
        assert!(maps.iter().all(|map| !map.requires_grad()) && !mixed.requires_grad());
    }

    #[test]
    fn an_images_logits_do_not_depend_on_the_others() {
        let (_, network) = tiny();
        let x = images(64);
        let both = network.forward(&x, Kind::Float, Mode::Eval);
        let one = network.forward(&x.narrow(0, 1, 1), Kind::Float, Mode::Eval);
        let largest = |t: &Tensor| t.abs().max().double_value(&[]);
        let off = largest(&(both.narrow(0, 1, 1) - &one)) / largest(&one);
        assert!(off < 1e-4, "{off}");
    }

    #[test]
    fn sizes_that_do_not_double_exactly_are_refused() {
        let check = |config: ProjectedConfig| config.check().map_err(|e| e.to_string());
        let error = check(ProjectedConfig { image_size: 100, ..ProjectedConfig::default() }).unwrap_err();
        assert!(error.contains("a multiple of 32") && error.contains("found 100"), "{error}");
        let error = check(ProjectedConfig { channels: 20, ..ProjectedConfig::default() }).unwrap_err();
        assert!(error.contains("a multiple of 8"), "{error}");
    }
}
