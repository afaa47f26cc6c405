//! Discriminators: networks that classify real images and reconstructions, and their configuration.

mod cost;
mod diffaug;
mod dino;
mod patchgan;
mod projected;
mod spectral;
mod stylegan;

use std::path::PathBuf;

use backbones::WeightSource;
use base::{Mode, Precision, Scope};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tch::{Kind, Tensor};

pub use diffaug::{DiffAug, Draws};
pub use dino::{DinoConfig, DinoDiscriminator, View};
pub use patchgan::{PatchGan, PatchGanConfig};
pub(crate) use projected::Scales;
pub use projected::{Projected, ProjectedConfig};
pub use stylegan::{StyleGan, StyleGanConfig};

use crate::Result;

/// A discriminator in a tokenizer's training.
pub trait Discriminator: std::fmt::Debug {
    /// Images (B, 3, H, W) in [-1, 1] → logits (B, …), computed in `kind`. Random numbers come
    /// from the thread's generator ([`base::random`]), and buffers change by [`base::carried`].
    fn logits(&self, images: &Tensor, kind: Kind, mode: Mode) -> Tensor;
}

/// `x` where it is positive, `x / 5` elsewhere.
fn leaky_relu(x: &Tensor) -> Tensor {
    x.prelu(&Tensor::full([1], 0.2, (x.kind(), x.device())))
}

impl Discriminator for PatchGan {
    fn logits(&self, images: &Tensor, kind: Kind, mode: Mode) -> Tensor {
        self.forward(&images.to_kind(kind), mode)
    }
}

impl Discriminator for StyleGan {
    fn logits(&self, images: &Tensor, kind: Kind, _mode: Mode) -> Tensor {
        self.forward(&images.to_kind(kind))
    }
}

impl Discriminator for DinoDiscriminator {
    fn logits(&self, images: &Tensor, kind: Kind, mode: Mode) -> Tensor {
        self.forward(images, self.draw_view(images), kind, mode)
    }
}

impl Discriminator for Projected {
    fn logits(&self, images: &Tensor, kind: Kind, mode: Mode) -> Tensor {
        self.forward(images, kind, mode)
    }
}

/// Any discriminator. Recipes without a `type` mean the PatchGAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", remote = "Self")]
pub enum DiscriminatorConfig {
    /// PatchGAN: every release but one.
    Patchgan(PatchGanConfig),
    /// Heads on a frozen DINO ViT (`VQ_BL256_dino_disc`).
    Dino(DinoConfig),
    /// Heads on mixed features of a frozen EfficientNet-Lite (Projected GANs).
    Projected(ProjectedConfig),
    /// StyleGAN2's.
    Stylegan(StyleGanConfig),
}

impl Serialize for DiscriminatorConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        DiscriminatorConfig::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for DiscriminatorConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut keys = serde_json::Map::deserialize(deserializer)?;
        keys.entry("type").or_insert_with(|| "patchgan".into());
        DiscriminatorConfig::deserialize(serde_json::Value::Object(keys)).map_err(serde::de::Error::custom)
    }
}

impl DiscriminatorConfig {
    /// Refuses a network that cannot be built or cannot take `batch` images of side `image_size`.
    ///
    /// # Errors
    /// Returns an error that names the setting.
    pub fn check(&self, image_size: i64, batch: i64) -> Result<()> {
        match self {
            DiscriminatorConfig::Patchgan(config) => config.check(image_size),
            DiscriminatorConfig::Dino(config) => config.check(batch),
            DiscriminatorConfig::Projected(config) => config.check(),
            DiscriminatorConfig::Stylegan(config) => config.check(image_size),
        }
    }

    /// File of frozen weights, if given.
    pub(crate) fn path_mut(&mut self) -> Option<&mut PathBuf> {
        let weights = match self {
            DiscriminatorConfig::Dino(config) => &mut config.weights,
            DiscriminatorConfig::Projected(config) => &mut config.weights,
            DiscriminatorConfig::Patchgan(_) | DiscriminatorConfig::Stylegan(_) => return None,
        };
        weights.as_mut().and_then(WeightSource::path_mut)
    }

    /// Builds the network with variables under `p`, for images of side `image_size` and training in
    /// `precision`; frozen weights are read from their file.
    ///
    /// # Errors
    /// Returns an error if a file of frozen weights is missing or does not fit.
    pub fn build(&self, p: &Scope, image_size: i64, precision: Precision) -> Result<Box<dyn Discriminator>> {
        Ok(match self {
            DiscriminatorConfig::Patchgan(config) => Box::new(PatchGan::new(p, config)),
            DiscriminatorConfig::Dino(config) => Box::new(DinoDiscriminator::new(p, config)?),
            DiscriminatorConfig::Projected(config) => Box::new(Projected::new(p, config, precision)?),
            DiscriminatorConfig::Stylegan(config) => Box::new(StyleGan::new(p, config, image_size)),
        })
    }

    /// Whether the discriminator sees reconstructions before real images, as in the official
    /// trainer with DINO. Power iterations and running statistics depend on the order.
    pub fn fake_first(&self) -> bool {
        match self {
            DiscriminatorConfig::Dino(_) => true,
            DiscriminatorConfig::Patchgan(_)
            | DiscriminatorConfig::Projected(_)
            | DiscriminatorConfig::Stylegan(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::adversarial::gradient_penalty;
    use base::{Build, Vars};
    use tch::Device;

    fn read(text: &str) -> DiscriminatorConfig {
        serde_json::from_str(text).unwrap()
    }

    /// The gradient of R1 by each variable, in fp32 as training takes it, against central
    /// differences along some directions; a few may cross a kink of a leaky ReLU, where the penalty
    /// jumps.
    #[test]
    fn gradients_of_the_penalty_equal_finite_differences_for_every_discriminator() {
        let dino = r#"{"type": "dino", "weights": "random:1", "width": 12, "heads": 2, "depth": 2, "taps": [1],
            "image_size": 16, "patch_size": 4, "kernel": 3}"#;
        let projected = r#"{"type": "projected", "weights": "random:1", "image_size": 32, "channels": 8}"#;
        let all = [
            (dino, 16, Mode::Eval), // training moves the vectors of the spectral norms
            (projected, 32, Mode::Eval),
            (r#"{"channels": 4, "layers": 2}"#, 16, Mode::Train),
            (r#"{"type": "stylegan", "channels": 6}"#, 8, Mode::Train),
        ];
        for (text, side, mode) in all {
            tch::manual_seed(5);
            let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
            let network = read(text).build(&vars.root(), side, Precision::Fp32).unwrap();
            vars.set_requires_grad(true);
            let images = Tensor::rand([2, 3, side, side], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            let penalty = || gradient_penalty(&network.logits(&images, Kind::Float, mode), &images, 15.0);
            let size = penalty();
            size.backward();
            let size = size.double_value(&[]);
            for var in vars.parameters() {
                let weight = &var.tensor;
                let gradient = weight.grad();
                let agrees = || {
                    let direction = weight.randn_like() * (weight.detach().abs().mean(Kind::Float) + 0.02);
                    let expected = match gradient.defined() {
                        true => (&gradient * &direction).sum(Kind::Double).double_value(&[]),
                        false => 0.0, // the bias of the last layer
                    };
                    const H: f64 = 3e-5; // smaller ones drown in rounding
                    let at = |h: f64| {
                        let kept = weight.detach().copy();
                        weight.shallow_clone().set_data(&(&kept + &direction * h));
                        let value = penalty().double_value(&[]);
                        weight.shallow_clone().set_data(&kept);
                        value
                    };
                    let found = (at(H) - at(-H)) / (2.0 * H);
                    (found - expected).abs() < 0.02 * (expected.abs() + size)
                };
                let right = (0..5).filter(|_| agrees()).count();
                assert!(right >= 3, "{text}: {} in {right} of 5 directions", var.name);
            }
        }
    }

    #[test]
    fn a_configuration_without_type_is_a_patchgan_and_unknown_keys_are_named() {
        let read = |text: &str| serde_json::from_str::<DiscriminatorConfig>(text);
        let old = read(r#"{"channels": 64, "layers": 3}"#).unwrap();
        let new = read(r#"{"type": "patchgan", "channels": 64, "layers": 3}"#).unwrap();
        assert_eq!(old, new);
        assert_eq!(read(&serde_json::to_string(&old).unwrap()).unwrap(), old);
        let error = read(r#"{"type": "stylegan", "chanels": 4}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `chanels`"), "{error}");
        assert!(
            matches!(read(r#"{"type": "dino"}"#).unwrap(), DiscriminatorConfig::Dino(c) if c.width == 384)
        );
    }
}
