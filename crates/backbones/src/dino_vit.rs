//! DINO's ViT-S/16 (Caron et al., arXiv 2104.14294; `dino_deitsmall16_pretrain.pth`), the backbone
//! of a discriminator.
//!
//! Two deviations of GigaTok's `discriminator_dino.py` from the stock network: GELU is the tanh
//! approximation, and the key part of every `qkv` bias is zeroed at load, which does not change the
//! softmax. The last norm is unused.
//!
//! B batch, D width, H heads, P patches, L = P + 1 tokens

use base::{Build, Init, Scope, Vars};
use nn::{Conv2d, LayerNorm, Linear};
use tch::{Device, Kind, Tensor};
use weights::{KeyMap, TensorSource};

const EPS: f64 = 1e-6;
const WEIGHT: Init = Init::Normal { std: 0.02 };
const ZERO: Init = Init::Const(0.0);

/// Sizes of a [`DinoVit`].
#[derive(Debug, Clone, Copy)]
pub struct DinoVitConfig<'a> {
    /// Width.
    pub width: i64,
    /// Attention heads.
    pub heads: i64,
    /// Blocks.
    pub depth: i64,
    /// Blocks, from 0, whose output is read; the input of the first block is always read.
    pub taps: &'a [i64],
    /// Side of the square input, pixels.
    pub image_size: i64,
    /// Side of a patch, pixels.
    pub patch_size: i64,
}

/// The network. Its weights get no gradients, but gradients pass through it to the images.
#[derive(Debug)]
pub struct DinoVit {
    patch_embed: Conv2d,
    cls_token: Tensor, // (1, 1, D)
    pos_embed: Tensor, // (1, L, D)
    blocks: Vec<Block>,
    taps: Vec<i64>,
}

impl DinoVit {
    /// Loads the public file's weights, in fp32.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, superfluous or of another shape.
    pub fn open(
        config: DinoVitConfig<'_>,
        source: &dyn TensorSource,
        device: Device,
    ) -> weights::Result<Self> {
        let vars = Vars::new(device, Kind::Float, Build::Empty);
        let vit = Self::new(&vars.root(), config);
        let map = KeyMap::identity().drop("norm.**", "the discriminator reads blocks, not the last norm");
        weights::load(&vars, source, &map)?;
        vit.zero_key_biases();
        Ok(vit)
    }

    /// Random weights, for tests and dry runs.
    pub fn random(config: DinoVitConfig<'_>, device: Device) -> Self {
        Self::new(&Vars::new(device, Kind::Float, Build::Random).root(), config)
    }

    fn new(p: &Scope, config: DinoVitConfig<'_>) -> Self {
        let (d, patch) = (config.width, config.patch_size);
        let tokens = (config.image_size / patch).pow(2) + 1;
        let embed = Conv2d::new(&(p / "patch_embed" / "proj"), 3, d, patch, WEIGHT, ZERO);
        DinoVit {
            cls_token: p.var("cls_token", &[1, 1, d], WEIGHT),
            pos_embed: p.var("pos_embed", &[1, tokens, d], WEIGHT),
            patch_embed: embed.with_stride(patch, 0),
            blocks: (0..config.depth).map(|i| Block::new(&(p / "blocks" / i), d, config.heads)).collect(),
            taps: config.taps.to_vec(),
        }
    }

    fn zero_key_biases(&self) {
        for block in &self.blocks {
            block.attn.zero_key_bias();
        }
    }

    /// Whether any weight records or has a gradient.
    #[cfg(test)]
    fn records_gradients(&self) -> bool {
        let of = |b: &Block| [b.attn.weight.shallow_clone(), b.attn.bias.shallow_clone()];
        let all = [self.cls_token.shallow_clone(), self.pos_embed.shallow_clone()].into_iter();
        all.chain(self.blocks.iter().flat_map(of)).any(|t| t.requires_grad() || t.grad().defined())
    }

    /// Normalised images (B, 3, S, S), fp32 → features (B, D, P) fp32 before the first block and
    /// after each tapped one: the patch tokens plus the class token. Branches compute in `kind`,
    /// the residual stream in fp32.
    pub fn forward(&self, images: &Tensor, kind: Kind) -> Vec<Tensor> {
        let b = images.size()[0];
        let patches = self.patch_embed.forward(&images.to_kind(kind)).flatten(2, 3).transpose(1, 2); // (B, P, D)
        let class = self.cls_token.expand([b, -1, -1], false);
        let mut x = Tensor::cat(&[class, patches.to_kind(Kind::Float)], 1) + &self.pos_embed; // (B, L, D)
        let mut read = vec![readout(&x)];
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, kind);
            if self.taps.contains(&(i as i64)) {
                read.push(readout(&x));
            }
        }
        read
    }
}

/// (B, L, D) → (B, D, P).
fn readout(x: &Tensor) -> Tensor {
    let patches = x.size()[1] - 1;
    (x.narrow(1, 1, patches) + x.narrow(1, 0, 1)).transpose(1, 2)
}

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn new(p: &Scope, width: i64, heads: i64) -> Self {
        let mlp = p / "mlp";
        Block {
            norm1: LayerNorm::new(&(p / "norm1"), width, EPS),
            attn: Attention::new(&(p / "attn"), width, heads),
            norm2: LayerNorm::new(&(p / "norm2"), width, EPS),
            fc1: Linear::new(&(&mlp / "fc1"), width, 4 * width, WEIGHT, Some(ZERO)),
            fc2: Linear::new(&(&mlp / "fc2"), 4 * width, width, WEIGHT, Some(ZERO)),
        }
    }

    fn forward(&self, x: &Tensor, kind: Kind) -> Tensor {
        let x = x + self.attn.forward(&self.norm1.forward(x).to_kind(kind)).to_kind(Kind::Float);
        let hidden = self.fc1.forward(&self.norm2.forward(&x).to_kind(kind)).gelu("tanh");
        x + self.fc2.forward(&hidden).to_kind(Kind::Float)
    }
}

#[derive(Debug)]
struct Attention {
    weight: Tensor, // (3D, D), rows q, k, v
    bias: Tensor,   // (3D)
    proj: Linear,
    heads: i64,
}

impl Attention {
    fn new(p: &Scope, width: i64, heads: i64) -> Self {
        let qkv = p / "qkv";
        Attention {
            weight: qkv.var("weight", &[3 * width, width], WEIGHT),
            bias: qkv.var("bias", &[3 * width], ZERO),
            proj: Linear::new(&(p / "proj"), width, width, WEIGHT, Some(ZERO)),
            heads,
        }
    }

    fn zero_key_bias(&self) {
        let width = self.bias.size()[0] / 3;
        let _ = self.bias.narrow(0, width, width).zero_();
    }

    /// Not fused, since the gradient penalties of R3GAN differentiate it twice.
    fn forward(&self, x: &Tensor) -> Tensor {
        let (b, l, d) = x.size3().expect("attention takes (B, L, D)");
        let k = d / self.heads;
        let qkv = x.linear(&self.weight.to_kind(x.kind()), Some(self.bias.to_kind(x.kind())));
        let qkv = qkv.view([b, l, 3, self.heads, k]).permute([2, 0, 3, 1, 4]);
        let scores = (qkv.get(0) / (k as f64).sqrt()).matmul(&qkv.get(1).transpose(-2, -1)); // (B, H, L, L)
        let y = scores.softmax(-1, x.kind()).matmul(&qkv.get(2));
        self.proj.forward(&y.transpose(1, 2).reshape([b, l, d]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_pass_through_and_stay_out_of_the_weights() {
        let taps = [1];
        let config =
            DinoVitConfig { width: 12, heads: 2, depth: 2, taps: &taps, image_size: 16, patch_size: 4 };
        let network = DinoVit::random(config, Device::Cpu);
        let images = Tensor::rand([2, 3, 16, 16], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let features = network.forward(&images, Kind::Float);
        assert_eq!(features.len(), 2);
        features[1].sum(Kind::Float).backward();
        assert!(images.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);
        assert!(!network.records_gradients());
    }
}
