//! DINOv2 (Oquab et al., arXiv 2304.07193), with and without registers (Darcet et al., arXiv
//! 2309.16588).
//!
//! Weights: `dinov2_vit{s,b,l,g}14_pretrain.pth` and `dinov2_vit{s,b,l,g}14_reg4_pretrain.pth`,
//! flat dictionaries under the names below. Pre-norm ViT: patches of 14, exact GELU (g: SwiGLU),
//! layer scale on both branches, LayerNorm eps 1e-6, positions learned on a 37×37 grid and
//! resampled to the image's.
//!
//! B batch, L tokens, D width, H heads, N patches in h rows of w, R registers

mod config;
mod extractor;
mod teacher;

use base::{Build, Init, Scope, Vars};
use nn::{Conv2d, LayerNorm, Linear};
use tch::{Device, Kind, Tensor};
use weights::{KeyMap, TensorSource};

pub use config::{DinoConfig, DinoSize, FeedForward, Positions};
pub use extractor::DinoExtractor;
pub use teacher::DinoTeacher;

use crate::imagenet::{IMAGENET_MEAN, IMAGENET_STD};
use crate::random::fan_in;
use crate::source::{Provenance, fill, fill_from};
use crate::{Error, Result, WeightSource};

#[derive(Debug)]
enum Ffn {
    Mlp { fc1: Linear, fc2: Linear },
    SwiGlu { w12: Linear, w3: Linear },
}

impl Ffn {
    fn new(p: &Scope, width: i64, kind: FeedForward) -> Self {
        let p = p / "mlp";
        match kind {
            FeedForward::Mlp { hidden } => {
                Ffn::Mlp { fc1: linear(&p, "fc1", width, hidden), fc2: linear(&p, "fc2", hidden, width) }
            }
            FeedForward::SwiGlu { hidden } => {
                Ffn::SwiGlu { w12: linear(&p, "w12", width, 2 * hidden), w3: linear(&p, "w3", hidden, width) }
            }
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Ffn::Mlp { fc1, fc2 } => fc2.forward(&fc1.forward(x).gelu("none")),
            Ffn::SwiGlu { w12, w3 } => {
                let both = w12.forward(x).chunk(2, -1);
                w3.forward(&(both[0].silu() * &both[1]))
            }
        }
    }
}

fn linear(p: &Scope, name: &str, inputs: i64, outputs: i64) -> Linear {
    Linear::new(&(p / name), inputs, outputs, Init::Normal { std: 0.02 }, Some(Init::Const(0.0)))
}

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    scale1: Tensor, // (D)
    norm2: LayerNorm,
    ffn: Ffn,
    scale2: Tensor, // (D)
    heads: i64,
}

const EPS: f64 = 1e-6;

impl Block {
    fn new(p: &Scope, config: &DinoConfig) -> Self {
        let width = config.width;
        let attention = p / "attn";
        let scale = |name: &str| (p / name).var("gamma", &[width], Init::Const(1.0));
        Block {
            norm1: LayerNorm::new(&(p / "norm1"), width, EPS),
            qkv: linear(&attention, "qkv", width, 3 * width),
            proj: linear(&attention, "proj", width, width),
            scale1: scale("ls1"),
            norm2: LayerNorm::new(&(p / "norm2"), width, EPS),
            ffn: Ffn::new(p, width, config.feed_forward),
            scale2: scale("ls2"),
            heads: config.heads,
        }
    }

    /// (B, L, D) → (B, L, D).
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attention(&self.norm1.forward(x)) * &self.scale1;
        &x + self.ffn.forward(&self.norm2.forward(&x)) * &self.scale2
    }

    fn attention(&self, x: &Tensor) -> Tensor {
        let (b, l, d) = x.size3().expect("attention takes (B, L, D)");
        let qkv = self.qkv.forward(x).view([b, l, 3, self.heads, d / self.heads]).permute([2, 0, 3, 1, 4]);
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2)); // (B, H, L, D/H)
        let y = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false);
        self.proj.forward(&y.transpose(1, 2).reshape([b, l, d]))
    }
}

/// Output for a batch, after the final norm.
#[derive(Debug)]
pub struct DinoTokens {
    /// The class token, (B, D): the feature of FDD.
    pub class: Tensor,
    /// (B, R, D); R is 0 without registers.
    pub registers: Tensor,
    /// (B, N, D), row by row.
    pub patches: Tensor,
}

/// The network.
#[derive(Debug)]
pub struct DinoV2 {
    config: DinoConfig,
    class_token: Tensor,             // (1, 1, D)
    positions: Tensor,               // (1, 1 + 37·37, D)
    register_tokens: Option<Tensor>, // (1, R, D)
    patch_embed: Conv2d,
    blocks: Vec<Block>,
    norm: LayerNorm,
    device: Device,
}

impl DinoV2 {
    /// Variables under the names of the public files.
    pub fn new(p: &Scope, config: &DinoConfig) -> Self {
        let DinoConfig { width, registers, patch, .. } = *config;
        let token = |name: &str, shape: &[i64]| p.var(name, shape, Init::Normal { std: 0.02 });
        let grid = config.image_size / patch;
        let class_token = token("cls_token", &[1, 1, width]);
        let positions = token("pos_embed", &[1, 1 + grid * grid, width]);
        let register_tokens = (registers > 0).then(|| token("register_tokens", &[1, registers, width]));
        let _ = token("mask_token", &[1, width]); // part of the file; only pretraining uses it
        let init = Init::torch_default(3 * patch * patch);
        let embed = Conv2d::new(&(p / "patch_embed" / "proj"), 3, width, patch, init, init);
        DinoV2 {
            class_token,
            positions,
            register_tokens,
            patch_embed: embed.with_stride(patch, 0),
            blocks: (0..config.depth).map(|i| Block::new(&(p / "blocks" / i), config)).collect(),
            norm: LayerNorm::new(&(p / "norm"), width, EPS),
            device: p.vars().device(),
            config: config.clone(),
        }
    }

    /// Fills the network from named tensors, in fp32.
    ///
    /// # Errors
    /// Returns an error if names or shapes are not exactly those of `config`.
    pub fn load(source: &dyn TensorSource, config: &DinoConfig, device: Device) -> Result<Self> {
        let vars = Vars::new(device, Kind::Float, Build::Empty);
        let net = Self::new(&vars.root(), config);
        fill_from("DINOv2", &vars, source, &key_map())?;
        Ok(net)
    }

    /// [`DinoV2::load`] from a weight file or at random.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, and as [`DinoV2::load`] does.
    pub fn open(from: &WeightSource, config: &DinoConfig, device: Device) -> Result<Self> {
        Ok(Self::open_named("DINOv2", from, config, device)?.0)
    }

    /// [`DinoV2::open`] with the origin of the weights.
    fn open_named(
        name: &str,
        from: &WeightSource,
        config: &DinoConfig,
        device: Device,
    ) -> Result<(Self, Provenance)> {
        let vars = Vars::new(device, Kind::Float, Build::Empty);
        let net = Self::new(&vars.root(), config);
        let provenance = fill(name, name, &vars, from, &key_map(), random_range)?;
        Ok((net, provenance))
    }

    /// (1, 1 + h·w, D) fp32: the learned positions, resampled to h rows of w patches. The learned
    /// grid itself is used unchanged.
    pub fn positions(&self, h: i64, w: i64) -> Tensor {
        let learned = self.positions.to_kind(Kind::Float);
        let grid = self.config.image_size / self.config.patch;
        if h == grid && w == grid {
            return learned;
        }
        let d = self.config.width;
        let map = learned.narrow(1, 1, grid * grid).view([1, grid, grid, d]).permute([0, 3, 1, 2]);
        let map = match self.config.positions {
            Positions::Scaled { offset } => {
                let scale = |n: i64| (n as f64 + offset) / grid as f64;
                map.upsample_bicubic2d([h, w], false, scale(h), scale(w))
            }
            Positions::Antialiased => map.internal_upsample_bicubic2d_aa([h, w], false, None, None),
        };
        let patches = map.permute([0, 2, 3, 1]).reshape([1, h * w, d]);
        Tensor::cat(&[learned.narrow(1, 0, 1), patches], 1)
    }

    /// (B, 3, H, W), normalised, sides multiples of the patch → tokens.
    ///
    /// # Errors
    /// Returns an error if the images have other sides.
    pub fn forward(&self, x: &Tensor) -> Result<DinoTokens> {
        self.forward_visiting(x, |_, _| {})
    }

    /// [`DinoV2::forward`] that shows `visit` each block's number and output (B, 1 + R + N, D).
    ///
    /// # Errors
    /// Returns an error as [`DinoV2::forward`] does.
    pub fn forward_visiting(&self, x: &Tensor, mut visit: impl FnMut(usize, &Tensor)) -> Result<DinoTokens> {
        let (h, w) = self.grid(x)?;
        let mut x = self.embed(x, &self.positions(h, w));
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x);
            visit(i, &x);
        }
        Ok(self.tokens(&x))
    }

    /// The outputs of some blocks (from 0) after the final norm, as maps (B, D, h, w) of the
    /// patches.
    ///
    /// # Errors
    /// Returns an error if a block does not exist, and as [`DinoV2::forward`] does.
    pub fn intermediate(&self, x: &Tensor, blocks: &[usize]) -> Result<Vec<Tensor>> {
        let (h, w) = self.grid(x)?;
        if let Some(block) = blocks.iter().find(|&&b| b >= self.blocks.len()) {
            return Err(Error::Input {
                what: "block of DINOv2",
                expected: format!("a number below {}", self.blocks.len()),
                found: block.to_string(),
            });
        }
        let mut found = vec![];
        self.forward_visiting(x, |i, y| {
            if blocks.contains(&i) {
                let patches = self.tokens(y).patches; // (B, h·w, D)
                found.push(patches.transpose(1, 2).reshape([-1, self.config.width, h, w]));
            }
        })?;
        Ok(found)
    }

    /// Rows and columns of patches.
    fn grid(&self, x: &Tensor) -> Result<(i64, i64)> {
        let patch = self.config.patch;
        match x.size().as_slice() {
            &[_, 3, h, w] if h > 0 && w > 0 && h % patch == 0 && w % patch == 0 => Ok((h / patch, w / patch)),
            found => Err(Error::Input {
                what: "images for DINOv2",
                expected: format!("(B, 3, H, W) with sides that are multiples of {patch}"),
                found: format!("{found:?}"),
            }),
        }
    }

    /// Patches with class token in front, positions added, registers (which have none) after the
    /// class token.
    fn embed(&self, x: &Tensor, positions: &Tensor) -> Tensor {
        let b = x.size()[0];
        let patches = self.patch_embed.forward(x).flatten(2, 3).transpose(1, 2); // (B, N, D)
        let expand = |t: &Tensor| t.expand([b, -1, -1], false);
        let x = Tensor::cat(&[expand(&self.class_token), patches], 1) + positions;
        match &self.register_tokens {
            None => x,
            Some(registers) => {
                let patches = x.narrow(1, 1, x.size()[1] - 1);
                Tensor::cat(&[x.narrow(1, 0, 1), expand(registers), patches], 1)
            }
        }
    }

    fn tokens(&self, x: &Tensor) -> DinoTokens {
        let x = self.norm.forward(x);
        let (r, l) = (self.config.registers, x.size()[1]);
        DinoTokens {
            class: x.select(1, 0),
            registers: x.narrow(1, 1, r),
            patches: x.narrow(1, 1 + r, l - 1 - r),
        }
    }
}

/// Images in [0, 1], normalised by ImageNet's mean and deviation.
fn normalized(x: &Tensor) -> Tensor {
    let colour =
        |c: [f64; 3]| Tensor::from_slice(&c).to_kind(Kind::Float).view([1, 3, 1, 1]).to_device(x.device());
    (x - colour(IMAGENET_MEAN)) / colour(IMAGENET_STD)
}

/// timm's copies of the files lack the mask token.
fn key_map() -> KeyMap {
    KeyMap::identity().optional("mask_token", "only pretraining uses it")
}

/// Range of random weights.
fn random_range(name: &str, shape: &[i64]) -> (f64, f64) {
    let width = shape.last().copied().unwrap_or(1) as f64;
    let symmetric = |bound: f64| (-bound, bound);
    match name.rsplit_once('.').map_or(("", name), |(p, leaf)| (p, leaf)) {
        (_, "cls_token" | "pos_embed" | "mask_token" | "register_tokens") => symmetric(0.5),
        (_, "gamma") => (0.1, 0.5),
        (_, "bias") => symmetric(0.1),
        (p, _) if p.contains("norm") => (0.8, 1.2),
        (p, _) if p.ends_with("attn.qkv") => symmetric(1.5 * (3.0 / width).sqrt()),
        _ => symmetric((3.0 / fan_in(shape)).sqrt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sizes_have_the_published_parameters() {
        let sizes = [22_056_576, 86_580_480, 304_368_640, 1_136_480_768];
        for (size, expected) in DinoSize::ALL.into_iter().zip(sizes) {
            for registers in [false, true] {
                let config = DinoConfig::published(size, registers);
                let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
                DinoV2::new(&vars.root(), &config);
                let extra = config.registers * config.width;
                assert_eq!(vars.num_parameters(), expected + extra, "{}", size.name(registers));
            }
        }
    }

    fn tiny(registers: i64, feed_forward: FeedForward) -> DinoV2 {
        let config = DinoConfig {
            width: 24,
            depth: 2,
            heads: 3,
            patch: 14,
            image_size: 70,
            registers,
            feed_forward,
            positions: if registers > 0 { Positions::Antialiased } else { Positions::Scaled { offset: 0.1 } },
        };
        tch::manual_seed(4);
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        DinoV2::new(&vars.root(), &config)
    }

    fn image(h: i64, w: i64) -> Tensor {
        Tensor::randn([2, 3, h, w], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn shapes_follow_the_grid_and_rows_are_independent() {
        for net in [tiny(4, FeedForward::Mlp { hidden: 48 }), tiny(0, FeedForward::SwiGlu { hidden: 32 })] {
            let _guard = tch::no_grad_guard();
            let x = image(42, 28);
            let all = net.forward(&x).unwrap();
            assert_eq!(all.class.size(), [2, 24]);
            assert_eq!(all.registers.size(), [2, net.config.registers, 24]);
            assert_eq!(all.patches.size(), [2, 6, 24]);
            let one = net.forward(&x.narrow(0, 1, 1)).unwrap();
            assert!(one.class.allclose(&all.class.narrow(0, 1, 1), 1e-5, 1e-5, false));
            let maps = net.intermediate(&x, &[0, 1]).unwrap();
            assert_eq!(maps[0].size(), [2, 24, 3, 2]);
            let last = all.patches.transpose(1, 2).reshape([2, 24, 3, 2]);
            assert!(maps[1].allclose(&last, 1e-6, 1e-6, false));
            assert!(net.forward(&image(40, 28)).is_err() && net.intermediate(&x, &[2]).is_err());
        }
    }

    #[test]
    fn the_learned_grid_is_used_unchanged() {
        let net = tiny(0, FeedForward::Mlp { hidden: 48 });
        assert_eq!(net.positions(5, 5), net.positions);
        assert_eq!(net.positions(2, 3).size(), [1, 7, 24]);
    }

    #[test]
    fn without_layer_scale_only_the_embedding_is_normalised() {
        let net = tiny(0, FeedForward::Mlp { hidden: 48 });
        let _guard = tch::no_grad_guard();
        for block in &net.blocks {
            let _ = block.scale1.shallow_clone().zero_();
            let _ = block.scale2.shallow_clone().zero_();
        }
        let x = image(28, 28);
        let expected = net.norm.forward(&net.embed(&x, &net.positions(2, 2))).select(1, 0);
        assert_eq!(net.forward(&x).unwrap().class, expected);
    }
}
