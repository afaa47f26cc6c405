//! A tokenizer of any family, by its configuration.

use backbones::{WeightSource, efficientnet_weights};
use base::{Codes, Images, Mode, Scope};
use tch::{Device, Kind, Tensor};

use crate::config::{GigaTokConfig, TokenizerConfig};
use crate::error::{Error, Result};
use crate::gigatok::{GigaTok, vision::Vision};
use crate::llamagen_vq::LlamaGenVq;
use crate::quantizer::Quantizer;
use crate::spec::{CodeLayout, Latents, Tokenizer, TokenizerSpec, TrainOutput};

/// Any tokenizer of this crate.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // there is one of it
pub enum Model {
    /// GigaTok.
    GigaTok(GigaTok),
    /// LlamaGen's VQGAN.
    LlamaGenVq(LlamaGenVq),
}

macro_rules! each {
    ($self:expr, $m:ident => $body:expr) => {
        match $self {
            Model::GigaTok($m) => $body,
            Model::LlamaGenVq($m) => $body,
        }
    };
}

impl Model {
    /// Builds the variables under `p`.
    ///
    /// # Errors
    /// Returns an error if the configuration cannot be built.
    pub fn new(p: &Scope, config: &TokenizerConfig) -> Result<Self> {
        config.check()?;
        Ok(match config {
            TokenizerConfig::Gigatok(c) => Model::GigaTok(GigaTok::new(p, c)?),
            TokenizerConfig::LlamagenVq(c) => Model::LlamaGenVq(LlamaGenVq::new(p, c)),
        })
    }

    /// Reads the weights of the frozen vision network of `config` into a model under `p`, where it
    /// has one.
    ///
    /// # Errors
    /// Returns an error if the weights cannot be read or are another network's.
    pub fn load_vision(p: &Scope, config: &TokenizerConfig, from: Option<&WeightSource>) -> Result<()> {
        let TokenizerConfig::Gigatok(GigaTokConfig { vision: Some(vision), .. }) = config else {
            return Ok(());
        };
        Vision::load(p, *vision, &efficientnet_weights(from, vision.size)?)
    }

    /// The quantizer.
    pub fn quantizer(&self) -> &dyn Quantizer {
        each!(self, m => m.quantizer())
    }

    pub(crate) fn pack_cnn(&mut self) {
        each!(self, m => m.pack_cnn());
    }

    /// Activations before the quantizer; (B, 3, H, W) in [-1, 1].
    pub fn latents(&self, images: &Tensor) -> Latents {
        each!(self, m => m.latents(images))
    }

    /// (B, N, D) → (B, 3, H, W), not clamped.
    pub fn decode_latents(&self, z: &Tensor) -> Tensor {
        each!(self, m => m.decode_latents(z))
    }

    /// A training pass over (B, 3, H, W) images in [-1, 1].
    pub fn forward_train(&self, images: &Tensor, mode: Mode, direct: bool) -> TrainOutput {
        each!(self, m => m.forward_train(images, mode, direct))
    }

    /// The weight of the last layer, which the adaptive discriminator weight differentiates.
    pub fn last_layer(&self) -> &Tensor {
        each!(self, m => m.cnn_decoder().last_layer())
    }

    /// See [`crate::CnnDecoder::tie_sub_pixels`].
    pub fn tie_sub_pixels(&self) {
        each!(self, m => m.cnn_decoder().tie_sub_pixels());
    }

    /// Dtype of the weights, which activations follow outside training.
    fn kind(&self) -> Kind {
        self.last_layer().kind()
    }

    /// A 1-D tokenizer and GigaTok's 2-D one have position tables and so one size; the VQGAN takes
    /// any square grid whose side its codes can be read back from.
    fn check_images(&self, images: &Images) -> Result<()> {
        let size = images.tensor().size();
        let side = self.spec().image_size;
        let fits = match self {
            Model::GigaTok(_) => size[2] == side && size[3] == side,
            Model::LlamaGenVq(_) => {
                let CodeLayout::Grid { height, .. } = self.spec().layout else {
                    unreachable!("a VQGAN is 2-D")
                };
                size[2] == size[3] && size[2] % (side / height) == 0
            }
        };
        let expected = || format!("(B, 3, {side}, {side})");
        if fits {
            Ok(())
        } else {
            Err(Error::Input { what: "images", expected: expected(), found: format!("{size:?}") })
        }
    }

    fn check_codes(&self, codes: &Codes) -> Result<()> {
        let size = codes.tensor().size();
        let spec = self.spec();
        let square = |n: i64| ((n as f64).sqrt().round() as i64).pow(2) == n;
        let fits = size[1] == spec.num_tokens || (matches!(self, Model::LlamaGenVq(_)) && square(size[1]));
        if !fits {
            return Err(Error::Input {
                what: "codes",
                expected: format!("(B, {})", spec.num_tokens),
                found: format!("{size:?}"),
            });
        }
        match codes.range() {
            Some((low, high)) if low < 0 || high >= spec.codebook_size => Err(Error::Input {
                what: "codes",
                expected: format!("values in 0..{}", spec.codebook_size),
                found: format!("{low}..={high}"),
            }),
            _ => Ok(()),
        }
    }
}

impl Tokenizer for Model {
    fn spec(&self) -> &TokenizerSpec {
        each!(self, m => m.spec())
    }

    fn encode(&self, images: &Images) -> Result<Codes> {
        let z = self.features(images)?;
        let _guard = tch::no_grad_guard();
        self.quantizer().check_finite()?;
        Ok(Codes::new(self.quantizer().encode(&z))?)
    }

    fn decode(&self, codes: &Codes) -> Result<Images> {
        self.check_codes(codes)?;
        let _guard = tch::no_grad_guard();
        let kind = self.kind();
        let images = in_parts(codes.tensor(), |part| {
            let rows = self.quantizer().lookup(&Codes::new(part)?); // the exact code vectors
            Ok(self.decode_latents(&rows.to_kind(kind)).to_kind(Kind::Float))
        })?;
        refuse_not_finite(&images, "decoder")?;
        Ok(Images::new(images)?)
    }

    fn features(&self, images: &Images) -> Result<Tensor> {
        self.check_images(images)?;
        let _guard = tch::no_grad_guard();
        let z = in_parts(images.tensor(), |part| {
            Ok(self.latents(&part.to_kind(self.kind())).pre_quantized.to_kind(Kind::Float))
        })?;
        refuse_not_finite(&z, "encoder")?;
        Ok(z)
    }
}

/// Returns an error if a batch (B, …) is not finite; it names the first such image.
fn refuse_not_finite(batch: &Tensor, network: &'static str) -> Result<()> {
    let finite = batch.isfinite().flatten(1, -1).all_dim(1, false);
    if bool::try_from(finite.all())? {
        return Ok(());
    }
    let index = finite.to_kind(Kind::Int64).argmin(0, false).int64_value(&[]) as usize;
    Err(Error::NotFinite { network, index, image: format!("image {index} of the batch") })
}

/// Runs a batch through `network`, on the CPU one image at a time: one keeps the cores busy, and
/// more only leave their caches and take as much memory again. It also makes an image's result the
/// same in any batch, which convolutions over several images do not: they round differently from
/// one number of images to another.
fn in_parts(batch: &Tensor, network: impl Fn(Tensor) -> Result<Tensor>) -> Result<Tensor> {
    if batch.device() != Device::Cpu || batch.size()[0] <= 1 {
        return network(batch.shallow_clone());
    }
    let parts: Result<Vec<Tensor>> = batch.split(1, 0).into_iter().map(network).collect();
    Ok(Tensor::cat(&parts?, 0))
}
