//! LlamaGen's VQGAN tokenizer (Sun et al., 2024, arXiv 2406.06525), 2-D, without transformers.
//!
//! Loads `vq_ds16_c2i.pt`, `vq_ds16_t2i.pt` and `vq_ds8_c2i.pt` unchanged (official `vq_model.py`).
//!
//! B batch, Z CNN channels, N = h·w codes, D code width

use base::{Mode, Scope};
use tch::Tensor;

use crate::bottleneck::{Bottleneck, to_tokens};
use crate::cnn::{CnnDecoder, CnnEncoder};
use crate::config::LlamaGenVqConfig;
use crate::quantizer::Quantizer;
use crate::spec::{CodeLayout, Latents, TokenizerSpec, TrainOutput};

/// The VQGAN network.
#[derive(Debug)]
pub struct LlamaGenVq {
    encoder: CnnEncoder,
    bottleneck: Bottleneck,
    decoder: CnnDecoder,
    spec: TokenizerSpec,
}

impl LlamaGenVq {
    /// Variables under `p` with the official names.
    pub fn new(p: &Scope, config: &LlamaGenVqConfig) -> Self {
        let quantizer = config.quantizer.settings();
        let side = config.image_size / config.cnn.patch();
        LlamaGenVq {
            encoder: CnnEncoder::new(&(p / "encoder"), &config.cnn),
            bottleneck: Bottleneck::new(p, config.cnn.z_channels, &config.quantizer),
            decoder: CnnDecoder::new(&(p / "decoder"), &config.cnn),
            spec: TokenizerSpec {
                codebook_size: quantizer.codebook_size(),
                code_dim: quantizer.code_dim(),
                num_tokens: side * side,
                image_size: config.image_size,
                layout: CodeLayout::Grid { height: side, width: side },
                any_size: true,
            },
        }
    }

    /// Sizes of images and codes.
    pub fn spec(&self) -> &TokenizerSpec {
        &self.spec
    }

    /// The quantizer.
    pub fn quantizer(&self) -> &dyn Quantizer {
        self.bottleneck.quantizer.as_ref()
    }

    pub(crate) fn pack_cnn(&mut self) {
        self.encoder.pack();
        self.decoder.pack();
    }

    /// The CNN decoder.
    pub fn cnn_decoder(&self) -> &CnnDecoder {
        &self.decoder
    }

    /// (B, 3, H, W) → activations before the quantizer. There is no transformer, so `features`
    /// and `projected` are the CNN's.
    pub fn latents(&self, images: &Tensor) -> Latents {
        let cnn = self.encoder.forward(images);
        Latents {
            pre_quantized: self.bottleneck.project(&cnn),
            features: to_tokens(&cnn),
            projected: to_tokens(&cnn),
            cnn,
            vision: None,
        }
    }

    /// (B, N, D) → (B, 3, H, W), not clamped; N is a square.
    pub fn decode_latents(&self, z: &Tensor) -> Tensor {
        self.decoder.forward(&self.grid_features(z))
    }

    fn grid_features(&self, z: &Tensor) -> Tensor {
        let (b, n, d) = z.size3().expect("latents are (B, N, D)");
        let side = (n as f64).sqrt().round() as i64;
        self.bottleneck.expand(&z.transpose(1, 2).reshape([b, d, side, side]))
    }

    /// The whole pass with what the losses need.
    pub fn forward_train(&self, images: &Tensor, mode: Mode, direct: bool) -> TrainOutput {
        let latents = self.latents(images);
        let quantized = self.bottleneck.quantizer.forward(&latents.pre_quantized, mode);
        let grid = self.grid_features(&quantized.z);
        TrainOutput {
            reconstruction: self.decoder.forward(&grid),
            direct: direct.then(|| self.decoder.forward(&latents.cnn)),
            codes: quantized.codes,
            losses: quantized.losses,
            aligned: None,
            cnn_features: latents.cnn,
            vision: None,
            decoder_features: grid,
        }
    }
}
