//! GigaTok (Xiong et al., 2025, arXiv 2504.08736): CNN → Q-Former → quantizer → Q-Former →
//! CNN, figure 2.
//!
//! Loads `VQ_SS256`, `VQ_SB256`, `VQ_BL256`, `VQ_BL256_dino_disc`, `VQ_XLXXL256` and the 2-D
//! variants unchanged (official `vq_vit_model.py`). Dropout and the experimental options no
//! released model uses are left out.
//!
//! B batch, Z CNN channels, N codes, D code width, P grid positions

mod qformer;
pub(crate) mod query_init;
pub(crate) mod vision;

use base::{Mode, Scope};
use tch::Tensor;

use crate::bottleneck::{Bottleneck, to_tokens};
use crate::cnn::{CnnDecoder, CnnEncoder};
use crate::config::{GigaTokConfig, Latent};
use crate::error::Result;
use crate::quantizer::Quantizer;
use crate::spec::{CodeLayout, Latents, TokenizerSpec, TrainOutput};

/// The GigaTok network.
#[derive(Debug)]
pub struct GigaTok {
    encoder: CnnEncoder,
    vision: Option<vision::Vision>,
    grid: i64,
    to_latents: qformer::Encoder,
    bottleneck: Bottleneck,
    to_grid: qformer::Decoder,
    decoder: CnnDecoder,
    cnn_alignment: Option<qformer::AlignmentMlp>,
    spec: TokenizerSpec,
}

impl GigaTok {
    /// Variables under `p` with the official names.
    ///
    /// # Errors
    /// Returns an error if the multi-level queries do not fit the grid.
    pub fn new(p: &Scope, config: &GigaTokConfig) -> Result<Self> {
        let quantizer = config.quantizer.settings();
        let z = config.cnn.z_channels;
        let grid = config.grid();
        let layout = match config.latent {
            Latent::Sequence { num_tokens, .. } => CodeLayout::Sequence { len: num_tokens },
            Latent::Grid { .. } => CodeLayout::Grid { height: grid, width: grid },
        };
        let on_cnn = config.alignment.filter(|a| a.decoder_layer().is_none());
        Ok(GigaTok {
            cnn_alignment: on_cnn.map(|a| qformer::AlignmentMlp::new(&(p / "distill_mlp"), z, a.width)),
            encoder: CnnEncoder::new(&(p / "encoder"), &config.cnn),
            vision: config.vision.map(|v| vision::Vision::new(p, v, z)),
            grid,
            to_latents: qformer::Encoder::new(p, config)?,
            bottleneck: Bottleneck::new(p, z, &config.quantizer),
            to_grid: qformer::Decoder::new(p, config),
            decoder: CnnDecoder::new(&(p / "decoder"), &config.cnn),
            spec: TokenizerSpec {
                codebook_size: quantizer.codebook_size(),
                code_dim: quantizer.code_dim(),
                num_tokens: config.num_tokens(),
                image_size: config.image_size,
                layout,
                any_size: false,
            },
        })
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

    /// (B, 3, H, W) → activations before the quantizer.
    pub fn latents(&self, images: &Tensor) -> Latents {
        let mut cnn = self.encoder.forward(images); // (B, Z, h, w)
        let vision = self.vision.as_ref().map(|vision| {
            let (features, projected) = vision.forward(images, self.grid);
            cnn = &cnn + projected;
            features
        });
        let (map, features) = self.to_latents.forward(&cnn);
        Latents {
            pre_quantized: self.bottleneck.project(&map),
            projected: to_tokens(&map),
            features,
            cnn,
            vision,
        }
    }

    /// (B, N, D) → decoder features for the CNN (B, Z, h, w), and the aligned layer's output (B,
    /// P, W).
    pub fn grid_features(&self, z: &Tensor) -> (Tensor, Option<Tensor>) {
        let row = z.transpose(1, 2).unsqueeze(2); // (B, D, 1, N)
        self.to_grid.forward(&to_tokens(&self.bottleneck.expand(&row)))
    }

    /// The aligned decoder layer's output through `distill_mlp`: (B, P, W) → (B, P, teacher
    /// width).
    pub fn align(&self, tapped: &Tensor) -> Option<Tensor> {
        self.to_grid.align(tapped)
    }

    /// (B, N, D) → (B, 3, H, W), not clamped.
    pub fn decode_latents(&self, z: &Tensor) -> Tensor {
        self.decoder.forward(&self.grid_features(z).0)
    }

    /// The whole pass with what the losses need. `direct` adds the reconstruction that bypasses
    /// transformers and quantizer (the auxiliary phase of training).
    pub fn forward_train(&self, images: &Tensor, mode: Mode, direct: bool) -> TrainOutput {
        let latents = self.latents(images);
        let quantized = self.bottleneck.quantizer.forward(&latents.pre_quantized, mode);
        let (grid, tapped) = self.grid_features(&quantized.z);
        let on_cnn = |mlp: &qformer::AlignmentMlp| mlp.forward(&to_tokens(&latents.cnn));
        let aligned = tapped.as_ref().and_then(|t| self.align(t));
        TrainOutput {
            reconstruction: self.decoder.forward(&grid),
            direct: direct.then(|| self.decoder.forward(&latents.cnn)),
            codes: quantized.codes,
            losses: quantized.losses,
            aligned: aligned.or_else(|| self.cnn_alignment.as_ref().map(on_cnn)),
            cnn_features: latents.cnn,
            vision: latents.vision,
            decoder_features: grid,
        }
    }
}
