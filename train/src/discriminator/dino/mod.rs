//! The DINO discriminator of StyleGAN-T (Sauer et al., arXiv 2301.09515) as in GigaTok's
//! `discriminator_dino.py`: a frozen DINO ViT-S/16 and a small trained head on each of five of its
//! features. Used by `VQ_BL256_dino_disc`.
//!
//! B batch, D width, P patches

mod heads;

use backbones::{DinoVit, DinoVitConfig, IMAGENET_MEAN, IMAGENET_STD, WeightSource};
use base::{Mode, Scope, random};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use weights::{Checkpoint, Want};

use self::heads::{GROUP, Head};
use crate::{Error, Result};

/// Sizes of a [`DinoDiscriminator`]; by default the published ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DinoConfig {
    /// The backbone's weights: `dino_deitsmall16_pretrain.pth`.
    pub weights: Option<WeightSource>,
    /// Width of the backbone and of the heads.
    pub width: i64,
    /// Attention heads of the backbone.
    pub heads: i64,
    /// Blocks of the backbone.
    pub depth: i64,
    /// Blocks, from 0, whose output a head reads; another head reads the input of the first block.
    pub taps: Vec<i64>,
    /// Side of the backbone's square input, pixels.
    pub image_size: i64,
    /// Side of a patch.
    pub patch_size: i64,
    /// Width of the heads' second convolution.
    pub kernel: i64,
}

impl Default for DinoConfig {
    fn default() -> Self {
        DinoConfig {
            weights: None,
            width: 384,
            heads: 6,
            depth: 12,
            taps: vec![2, 5, 8, 11],
            image_size: 224,
            patch_size: 16,
            kernel: 9,
        }
    }
}

impl DinoConfig {
    fn patches(&self) -> i64 {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Sizes of the backbone.
    pub fn backbone(&self) -> DinoVitConfig<'_> {
        DinoVitConfig {
            width: self.width,
            heads: self.heads,
            depth: self.depth,
            taps: &self.taps,
            image_size: self.image_size,
            patch_size: self.patch_size,
        }
    }

    /// Refuses sizes that cannot be built or run with `batch` images at once.
    pub(super) fn check(&self, batch: i64) -> Result<()> {
        let fail = |message: String| Err(Error::Recipe(format!("dino discriminator: {message}")));
        if self.heads < 1 || self.width < 1 || self.width % self.heads != 0 {
            return fail(format!("width {} is not a multiple of heads {}", self.width, self.heads));
        }
        if self.patch_size < 1 || self.image_size < 1 || self.image_size % self.patch_size != 0 {
            let (image, patch) = (self.image_size, self.patch_size);
            return fail(format!("image_size {image} is not a multiple of patch_size {patch}"));
        }
        if self.kernel % 2 != 1 || self.kernel / 2 > self.patches() {
            return fail(format!(
                "kernel must be odd and fit {} patches, found {}",
                self.patches(),
                self.kernel
            ));
        }
        if self.taps.iter().any(|t| !(0..self.depth).contains(t)) {
            return fail(format!("taps {:?} are not blocks of {}", self.taps, self.depth));
        }
        let groups = (batch + GROUP - 1) / GROUP;
        if batch % groups.max(1) != 0 {
            return fail(format!(
                "{batch} images at once do not divide into {groups} groups of at most {GROUP} for its batch norm"
            ));
        }
        Ok(())
    }
}

/// Part of the images that the backbone sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// A crop at full resolution, the same for the whole batch.
    Crop {
        /// First row.
        top: i64,
        /// First column.
        left: i64,
    },
    /// The whole image: area averages where it is larger than the backbone's input, bicubic
    /// otherwise.
    Whole,
}

/// The discriminator: images to one logit for each head and patch.
#[derive(Debug)]
pub struct DinoDiscriminator {
    backbone: DinoVit,
    heads: Vec<Head>,
    mean: Tensor,
    std: Tensor,
    size: i64,
}

impl DinoDiscriminator {
    /// Heads with PyTorch's default initialisation; the backbone's weights are read from the file
    /// in `config`.
    ///
    /// # Errors
    /// Returns an error if no file is given or it does not fit the backbone.
    pub fn new(p: &Scope, config: &DinoConfig) -> Result<Self> {
        let device = p.vars().device();
        let missing = Error::NoWeights {
            network: "DINO's ViT-S/16 (`dino_deitsmall16_pretrain.pth`)",
            key: "losses.adversarial.discriminator.weights",
        };
        let backbone = match config.weights.as_ref().ok_or(missing)? {
            WeightSource::File(path) => {
                let source = Checkpoint::open(path)?.source(Want::Auto)?;
                DinoVit::open(config.backbone(), source.as_ref(), device)?
            }
            WeightSource::Random { seed } => {
                tch::manual_seed(*seed as i64);
                DinoVit::random(config.backbone(), device)
            }
        };
        Ok(Self::with_backbone(p, config, backbone))
    }

    /// The same with a given backbone.
    pub fn with_backbone(p: &Scope, config: &DinoConfig, backbone: DinoVit) -> Self {
        let heads =
            (0..=config.taps.len()).map(|h| Head::new(&(p / "heads" / h), config.width, config.kernel));
        let channels = |values: [f64; 3]| {
            let t = Tensor::from_slice(&values.map(|v| v as f32)).view([1, 3, 1, 1]);
            t.to_device(p.vars().device())
        };
        DinoDiscriminator {
            backbone,
            heads: heads.collect(),
            mean: channels(IMAGENET_MEAN),
            std: channels(IMAGENET_STD),
            size: config.image_size,
        }
    }

    /// A random view: for images larger than the backbone's input, a crop with probability ½, else
    /// the whole image; from the thread's generator ([`base::random`]).
    pub fn draw_view(&self, images: &Tensor) -> View {
        let (_, _, h, w) = images.size4().expect("images are (B, 3, H, W)");
        if h <= self.size || w <= self.size {
            return View::Whole;
        }
        let draws = random::uniform(&[3], (Kind::Double, Device::Cpu));
        let below = |i: i64, n: i64| ((draws.double_value(&[i]) * n as f64) as i64).min(n - 1);
        match draws.double_value(&[0]) <= 0.5 {
            true => View::Crop { top: below(1, h - self.size + 1), left: below(2, w - self.size + 1) },
            false => View::Whole,
        }
    }

    /// Inputs of the heads: (B, 3, H, W) in [-1, 1] → (B, D, P) each.
    pub fn features(&self, images: &Tensor, view: View, kind: Kind) -> Vec<Tensor> {
        let x = (images.to_kind(Kind::Float) * 0.5 + 0.5 - &self.mean) / &self.std;
        let s = self.size;
        let shown = match view {
            View::Crop { top, left } => x.narrow(2, top, s).narrow(3, left, s),
            View::Whole if x.size()[2] > s => x.adaptive_avg_pool2d([s, s]),
            View::Whole => x.upsample_bicubic2d([s, s], false, None, None),
        };
        self.backbone.forward(&shown, kind)
    }

    /// (B, 3, H, W) in [-1, 1] → logits (B, heads · P). In training mode, one power iteration of
    /// every spectral norm.
    pub fn forward(&self, images: &Tensor, view: View, kind: Kind, mode: Mode) -> Tensor {
        let features = self.features(images, view, kind);
        let logits: Vec<Tensor> =
            self.heads.iter().zip(features).map(|(h, x)| h.forward(&x.to_kind(kind), mode)).collect();
        Tensor::cat(&logits, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Build, Vars};

    fn tiny() -> DinoConfig {
        DinoConfig {
            weights: Some(WeightSource::Random { seed: 1 }),
            width: 12,
            heads: 2,
            depth: 2,
            taps: vec![1],
            image_size: 16,
            patch_size: 4,
            kernel: 3,
        }
    }

    #[test]
    fn the_released_size_has_the_published_parameters() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let config = DinoConfig { weights: Some(WeightSource::Random { seed: 1 }), ..DinoConfig::default() };
        let network = DinoDiscriminator::new(&vars.root(), &config).unwrap();
        assert_eq!(network.heads.len(), 5);
        assert_eq!(vars.num_parameters(), 7_386_245);
        assert_eq!(vars.get("heads.4.1.fn.0.weight_v").unwrap().size(), [3456]);
    }

    #[test]
    fn gradients_pass_through_the_frozen_backbone() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let network = DinoDiscriminator::new(&vars.root(), &tiny()).unwrap();
        vars.set_requires_grad(true);
        let images = Tensor::rand([2, 3, 20, 20], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        network.forward(&images, View::Whole, Kind::Float, Mode::Train).sum(Kind::Float).backward();
        assert!(images.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);
        assert!(vars.parameters().iter().all(|v| v.tensor.grad().defined()));
    }

    #[test]
    fn half_of_the_views_are_crops_within_the_image() {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let network = DinoDiscriminator::new(&vars.root(), &tiny()).unwrap();
        let images = |side: i64| Tensor::zeros([1, 3, side, side], (Kind::Float, Device::Cpu));
        assert_eq!(network.draw_view(&images(16)), View::Whole);
        tch::manual_seed(1);
        let mut crops = [0; 3];
        for _ in 0..400 {
            match network.draw_view(&images(18)) {
                View::Crop { top, left } if (0..=2).contains(&left) => crops[top as usize] += 1,
                View::Crop { .. } => panic!("outside"),
                View::Whole => {}
            }
        }
        assert!(crops.iter().all(|n| (30..110).contains(n)), "{crops:?}");
    }

    #[test]
    fn batches_that_do_not_divide_into_groups_are_refused() {
        assert!(tiny().check(8).is_ok() && tiny().check(16).is_ok());
        let error = tiny().check(9).unwrap_err().to_string();
        assert!(error.contains("9 images at once do not divide into 2 groups"), "{error}");
    }
}
