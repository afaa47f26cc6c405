//! The convolutional pixel encoder and decoder of VQGAN, LlamaGen and GigaTok (official
//! `blocks.py`).
//!
//! B batch, C channels, H×W pixels of the level, Z latent channels

use base::{Init, Scope};
use nn::{Conv2d, GroupNorm, Linear, channels_last};
use tch::{Kind, Tensor};

use crate::config::{CnnConfig, Upsample};

/// GigaTok and LlamaGen initialise convolutions and linears alike: N(0, 0.02), biases 0.
pub(crate) const WEIGHT: Init = Init::Normal { std: 0.02 };
pub(crate) const ZERO: Init = Init::Const(0.0);

fn conv(p: Scope, inputs: i64, outputs: i64, kernel: i64) -> Conv2d {
    Conv2d::new(&p, inputs, outputs, kernel, WEIGHT, ZERO)
}

/// The input of a network, channels last where the weights are and nothing is trained.
fn arranged(x: &Tensor, first: &Conv2d) -> Tensor {
    let trained = x.requires_grad() || first.weight().requires_grad();
    if first.is_channels_last() && !trained { channels_last(x) } else { x.shallow_clone() }
}

/// norm, SiLU, 3×3, norm, SiLU, 3×3, plus the input (through a 1×1 where the channels change).
#[derive(Debug)]
struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResBlock {
    fn new(p: &Scope, inputs: i64, outputs: i64, groups: i64) -> Self {
        ResBlock {
            norm1: GroupNorm::new(&(p / "norm1"), inputs, groups),
            conv1: conv(p / "conv1", inputs, outputs, 3),
            norm2: GroupNorm::new(&(p / "norm2"), outputs, groups),
            conv2: conv(p / "conv2", outputs, outputs, 3),
            shortcut: (inputs != outputs).then(|| conv(p / "nin_shortcut", inputs, outputs, 1)),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let h = self.conv1.forward(&self.norm1.silu(x));
        let h = self.norm2.silu(&h);
        match &self.shortcut {
            Some(shortcut) => self.conv2.forward_onto(&h, &shortcut.forward(x)),
            None => self.conv2.forward_onto(&h, x),
        }
    }

    fn pack(&mut self) {
        self.conv1.pack();
        self.conv2.pack();
    }
}

/// Single-head attention over the positions of the coarsest level (LlamaGen).
#[derive(Debug)]
struct AttnBlock {
    norm: GroupNorm,
    q: Conv2d,
    k: Conv2d,
    v: Conv2d,
    proj_out: Conv2d,
}

impl AttnBlock {
    fn new(p: &Scope, channels: i64, groups: i64) -> Self {
        AttnBlock {
            norm: GroupNorm::new(&(p / "norm"), channels, groups),
            q: conv(p / "q", channels, channels, 1),
            k: conv(p / "k", channels, channels, 1),
            v: conv(p / "v", channels, channels, 1),
            proj_out: conv(p / "proj_out", channels, channels, 1),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let (b, c, h, w) = x.size4().expect("feature maps are (B, C, H, W)");
        let n = self.norm.forward(x);
        let tokens = |conv: &Conv2d| conv.forward(&n).view([b, 1, c, h * w]).transpose(2, 3); // (B, 1, HW, C)
        let (q, k, v) = (tokens(&self.q), tokens(&self.k), tokens(&self.v));
        let y = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false);
        x + self.proj_out.forward(&y.transpose(2, 3).reshape([b, c, h, w]))
    }
}

/// A residual block and the attention that may follow it.
type Block = (ResBlock, Option<AttnBlock>);

fn run(blocks: &[Block], x: Tensor) -> Tensor {
    blocks.iter().fold(x, |x, (res, attn)| {
        let y = res.forward(&x);
        match attn {
            Some(attn) => attn.forward(&y),
            None => y,
        }
    })
}

/// The blocks of one level: `res.0…`, with `attn.0…` at the coarsest level of LlamaGen's
/// models.
fn level(p: &Scope, count: i64, inputs: i64, outputs: i64, attention: bool, groups: i64) -> Vec<Block> {
    (0..count)
        .map(|i| {
            let inputs = if i == 0 { inputs } else { outputs };
            let res = ResBlock::new(&(p / "res" / i), inputs, outputs, groups);
            (res, attention.then(|| AttnBlock::new(&(p / "attn" / i), outputs, groups)))
        })
        .collect()
}

/// Two residual blocks, with attention between them in LlamaGen's models (`mid.0`, `mid.1`,
/// `mid.2`).
fn middle(p: &Scope, channels: i64, attention: bool, groups: i64) -> Vec<Block> {
    let first = ResBlock::new(&(p / "mid" / 0), channels, channels, groups);
    let attn = attention.then(|| AttnBlock::new(&(p / "mid" / 1), channels, groups));
    let last = ResBlock::new(&(p / "mid" / if attention { 2 } else { 1 }), channels, channels, groups);
    vec![(first, attn), (last, None)]
}

/// Images → (B, Z, H/patch, W/patch).
#[derive(Debug)]
pub struct CnnEncoder {
    conv_in: Conv2d,
    levels: Vec<(Vec<Block>, Option<Conv2d>)>,
    mid: Vec<Block>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    stem: i64,
}

impl CnnEncoder {
    /// Variables under `p` with the official names.
    pub fn new(p: &Scope, config: &CnnConfig) -> Self {
        let widths: Vec<i64> = config.encoder_multipliers.iter().map(|m| m * config.channels).collect();
        let last = widths.len() - 1;
        let (top, groups) = (widths[last], config.norm_groups);
        let levels = widths
            .iter()
            .enumerate()
            .map(|(i, &width)| {
                let p = p / "conv_blocks" / i;
                let inputs = if i == 0 { config.channels } else { widths[i - 1] };
                let attention = config.attention && i == last;
                let blocks = level(&p, config.res_blocks, inputs, width, attention, groups);
                let down =
                    (i < last).then(|| conv(&p / "downsample" / "conv", width, width, 3).with_stride(2, 0));
                (blocks, down)
            })
            .collect();
        CnnEncoder {
            conv_in: conv(p / "conv_in", 3 * config.stem * config.stem, config.channels, 3),
            levels,
            mid: middle(p, top, config.attention, groups),
            norm_out: GroupNorm::new(&(p / "norm_out"), top, groups),
            conv_out: conv(p / "conv_out", top, config.z_channels, 3),
            stem: config.stem,
        }
    }

    /// See [`Conv2d::pack`].
    pub fn pack(&mut self) {
        let blocks = self.levels.iter_mut().flat_map(|(blocks, _)| blocks).chain(&mut self.mid);
        blocks.for_each(|(res, _)| res.pack());
        self.conv_out.pack();
    }

    /// (B, 3, H, W) → (B, Z, H/patch, W/patch).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = self.conv_in.forward(&arranged(&x.pixel_unshuffle(self.stem), &self.conv_in));
        for (blocks, down) in &self.levels {
            h = run(blocks, h);
            if let Some(down) = down {
                // One column on the right and one row at the bottom only.
                h = down.forward(&h.constant_pad_nd([0, 1, 0, 1]));
            }
        }
        let h = run(&self.mid, h);
        self.conv_out.forward(&self.norm_out.silu(&h))
    }
}

/// Group norm whose scale and shift come from the style map (official `AdaptiveGroupNorm`).
#[derive(Debug)]
struct AdaptiveGroupNorm {
    norm: GroupNorm,
    gamma: Linear,
    beta: Linear,
}

impl AdaptiveGroupNorm {
    fn new(p: &Scope, style: i64, channels: i64, groups: i64) -> Self {
        let linear = |p: Scope| Linear::new(&p, style, channels, WEIGHT, Some(ZERO));
        let norm = GroupNorm::plain(groups);
        AdaptiveGroupNorm { norm, gamma: linear(p / "gamma"), beta: linear(p / "beta") }
    }

    /// The unbiased variance, eps inside the root and no "1 +" are the official code's.
    fn forward(&self, x: &Tensor, style: &Tensor) -> Tensor {
        let s = style.flatten(2, 3).to_kind(Kind::Float); // (B, Z, h·w)
        let deviation = (s.var_dim([2i64].as_slice(), true, false) + 1e-6).sqrt(); // (B, Z)
        let mean = s.mean_dim([2i64].as_slice(), false, Kind::Float); // (B, Z)
        let scale = self.gamma.forward(&deviation.to_kind(x.kind())); // (B, C)
        let shift = self.beta.forward(&mean.to_kind(x.kind()));
        self.norm.modulated(x, &scale, &shift)
    }
}

/// Doubles the side.
#[derive(Debug)]
enum Up {
    DepthToSpace { conv: Conv2d, smooth: bool },
    Nearest { conv: Conv2d },
}

impl Up {
    fn new(p: &Scope, channels: i64, config: &CnnConfig) -> Self {
        match config.upsample {
            Upsample::DepthToSpace => {
                let conv = conv(p / "conv1", channels, 4 * channels, 3);
                Up::DepthToSpace { conv, smooth: config.smooth }
            }
            Upsample::Nearest => Up::Nearest { conv: conv(p / "conv", channels, channels, 3) },
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Up::DepthToSpace { conv, smooth: false } => depth_to_space(&conv.forward(x)),
            Up::DepthToSpace { conv, smooth: true } => smoothed(&depth_to_space(&conv.forward(x)), 2),
            Up::Nearest { conv } => {
                let (_, _, h, w) = x.size4().expect("feature maps are (B, C, H, W)");
                conv.forward(&x.upsample_nearest2d([2 * h, 2 * w], None, None))
            }
        }
    }
}

/// (B, 4C, H, W) → (B, C, 2H, 2W), the block position being the outer part of the channel (DCR
/// order). This is not `pixel_shuffle`, where it is the inner part. The order in memory is kept.
fn depth_to_space(x: &Tensor) -> Tensor {
    let (b, c4, h, w) = x.size4().expect("feature maps are (B, C, H, W)");
    let c = c4 / 4;
    if x.is_contiguous() {
        return x.view([b, 2, 2, c, h, w]).permute([0, 3, 4, 1, 5, 2]).reshape([b, c, 2 * h, 2 * w]);
    }
    let blocks = x.permute([0, 2, 3, 1]).reshape([b, h, w, 2, 2, c]);
    blocks.permute([0, 1, 3, 2, 4, 5]).reshape([b, 2 * h, 2 * w, c]).permute([0, 3, 1, 2])
}

/// (B, C, H, W) → the same shape through the triangular filter of 2·`factor` - 1 taps, whose
/// response is zero at all multiples of 1/`factor` cycles a place. Edges are repeated.
fn smoothed(x: &Tensor, factor: i64) -> Tensor {
    let n = factor - 1;
    let mean = |x: &Tensor| x.avg_pool2d([factor; 2], [1, 1], [0, 0], false, true, None);
    mean(&mean(&x.replication_pad2d([n, n, n, n])))
}

/// Gives all `positions` of a block the first one's weights and bias. They are the outer (`dim` 0)
/// or the inner (1) part of an output channel's number.
fn tie(conv: &Conv2d, positions: i64, dim: i64) {
    let _guard = tch::no_grad_guard();
    for t in std::iter::once(conv.weight()).chain(conv.bias()) {
        let rest = t.size()[0] / positions;
        let split = if dim == 0 { [positions, rest] } else { [rest, positions] };
        let parts = t.view([&split, &t.size()[1..]].concat().as_slice());
        parts.shallow_clone().copy_(&parts.narrow(dim, 0, 1).copy());
    }
}

#[derive(Debug)]
struct DecoderLevel {
    adaptive: Option<AdaptiveGroupNorm>,
    blocks: Vec<Block>,
    up: Option<Up>,
}

/// (B, Z, h, w) → images; no output activation, no clamp.
#[derive(Debug)]
pub struct CnnDecoder {
    conv_in: Conv2d,
    mid: Vec<Block>,
    levels: Vec<DecoderLevel>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    stem: i64,
    smooth: bool,
}

impl CnnDecoder {
    /// Variables under `p` with the official names; `conv_blocks.0` is the coarsest level.
    pub fn new(p: &Scope, config: &CnnConfig) -> Self {
        let widths: Vec<i64> = config.decoder_multipliers.iter().rev().map(|m| m * config.channels).collect();
        let (last, groups) = (widths.len() - 1, config.norm_groups);
        let levels = widths
            .iter()
            .enumerate()
            .map(|(i, &width)| {
                let inputs = if i == 0 { width } else { widths[i - 1] };
                let blocks = p / "conv_blocks" / i;
                let adaptive =
                    || AdaptiveGroupNorm::new(&(p / "adaptive" / i), config.z_channels, inputs, groups);
                let attention = config.attention && i == 0;
                DecoderLevel {
                    adaptive: config.adaptive_norm.then(adaptive),
                    blocks: level(&blocks, config.res_blocks + 1, inputs, width, attention, groups),
                    up: (i < last).then(|| Up::new(&(&blocks / "upsample"), width, config)),
                }
            })
            .collect();
        CnnDecoder {
            conv_in: conv(p / "conv_in", config.z_channels, widths[0], 3),
            mid: middle(p, widths[0], config.attention, groups),
            levels,
            norm_out: GroupNorm::new(&(p / "norm_out"), widths[last], groups),
            conv_out: conv(p / "conv_out", widths[last], 3 * config.stem * config.stem, 3),
            stem: config.stem,
            smooth: config.smooth && config.stem > 1,
        }
    }

    /// See [`Conv2d::pack`].
    pub fn pack(&mut self) {
        let blocks = self.levels.iter_mut().flat_map(|level| &mut level.blocks).chain(&mut self.mid);
        blocks.for_each(|(res, _)| res.pack());
        for up in self.levels.iter_mut().filter_map(|level| level.up.as_mut()) {
            let (Up::DepthToSpace { conv, .. } | Up::Nearest { conv }) = up;
            conv.pack();
        }
    }

    /// (B, Z, h, w) → (B, 3, h·patch, w·patch).
    pub fn forward(&self, z: &Tensor) -> Tensor {
        let mut h = run(&self.mid, self.conv_in.forward(&arranged(z, &self.conv_in)));
        for level in &self.levels {
            if let Some(adaptive) = &level.adaptive {
                h = adaptive.forward(&h, z);
            }
            h = run(&level.blocks, h);
            if let Some(up) = &level.up {
                h = up.forward(&h);
            }
        }
        let pixels = self.conv_out.forward(&self.norm_out.silu(&h)).pixel_shuffle(self.stem);
        if self.smooth { smoothed(&pixels, self.stem) } else { pixels }
    }

    /// Gives all positions of a block the first one's weights, in every convolution that computes
    /// them as channels, so that each begins as nearest-neighbour up-sampling does: ICNR (Aitken et
    /// al., arXiv 1707.02937).
    pub fn tie_sub_pixels(&self) {
        for level in &self.levels {
            if let Some(Up::DepthToSpace { conv, .. }) = &level.up {
                tie(conv, 4, 0);
            }
        }
        tie(&self.conv_out, self.stem * self.stem, 1);
    }

    /// The weight of the last layer, which the adaptive discriminator weight differentiates.
    pub fn last_layer(&self) -> &Tensor {
        self.conv_out.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Build, Vars};
    use tch::Device;

    fn decoder(smooth: bool) -> CnnDecoder {
        let config = CnnConfig {
            channels: 8,
            norm_groups: 2,
            encoder_multipliers: vec![1, 2],
            decoder_multipliers: vec![1, 2],
            res_blocks: 1,
            z_channels: 8,
            attention: false,
            adaptive_norm: false,
            upsample: Upsample::DepthToSpace,
            stem: 2,
            smooth,
        };
        CnnDecoder::new(&Vars::new(Device::Cpu, Kind::Float, Build::Random).root(), &config)
    }

    /// The largest difference within a block of 2×2.
    fn spread(x: &Tensor) -> f64 {
        let (b, c, h, w) = x.size4().unwrap();
        let blocks = x.contiguous().view([b, c, h / 2, 2, w / 2, 2]);
        (blocks.amax([3i64, 5], false) - blocks.amin([3i64, 5], false)).max().double_value(&[])
    }

    #[test]
    fn tied_positions_make_blocks_of_one_colour() {
        let decoder = decoder(false);
        let up = |x: &Tensor| decoder.levels[0].up.as_ref().unwrap().forward(x);
        let of = |c: i64| Tensor::randn([2, c, 4, 4], (Kind::Float, Device::Cpu));
        let (z, x) = (of(8), of(16));
        assert!(spread(&up(&x)) > 0.1 && spread(&decoder.forward(&z)) > 0.1);
        decoder.tie_sub_pixels();
        assert_eq!((spread(&up(&x)), spread(&decoder.forward(&z))), (0.0, 0.0));
        // Different places still differ.
        assert!(decoder.forward(&z).std(false).double_value(&[]) > 0.01);
    }

    #[test]
    fn smoothed_maps_are_even_where_their_source_is() {
        // The borders' zeros reach ten places of the coarse map and six of the fine one: 53 of 144
        // pixels.
        let z = Tensor::ones([1, 8, 36, 36], (Kind::Float, Device::Cpu));
        let middle = |x: Tensor| x.narrow(2, 68, 8).narrow(3, 68, 8);
        assert!(spread(&middle(decoder(false).forward(&z))) > 0.01);
        let even = spread(&middle(decoder(true).forward(&z)));
        assert!(even < 1e-5, "{even}");
        // What varies slowly passes.
        let ramp = Tensor::arange(12, (Kind::Float, Device::Cpu)).expand([1, 1, 12, 12], false);
        for factor in [2, 4] {
            let inner = |x: &Tensor| x.narrow(2, 3, 6).narrow(3, 3, 6);
            let off = (inner(&smoothed(&ramp, factor)) - inner(&ramp)).abs().max().double_value(&[]);
            assert!(off < 1e-5, "{factor}: {off}");
        }
    }
}
