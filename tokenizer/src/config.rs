//! Configuration of a tokenizer, as a user writes it.

use backbones::EfficientNetSize;
use serde::de::{IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};
use crate::quantizer::QuantizerConfig;
use crate::sizes::Size;

/// Any tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TokenizerConfig {
    /// GigaTok, 1-D or 2-D.
    Gigatok(GigaTokConfig),
    /// LlamaGen's 2-D VQGAN.
    LlamagenVq(LlamaGenVqConfig),
}

/// GigaTok (arXiv 2504.08736): CNN, transformer, vector quantizer, transformer, CNN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GigaTokConfig {
    /// Side of the square images, pixels.
    pub image_size: i64,
    /// Arrangement of the codes: a learned sequence, or the image grid.
    pub latent: Latent,
    /// The two CNNs.
    pub cnn: CnnConfig,
    /// A frozen network beside the CNN encoder.
    #[serde(default)]
    pub vision: Option<VisionConfig>,
    /// Transformer before the quantizer.
    pub encoder: Size,
    /// Transformer after the quantizer.
    pub decoder: Size,
    /// The training-only projection onto a semantic teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<Alignment>,
    /// The codebook.
    pub quantizer: QuantizerConfig,
}

/// The arrangement of the codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Latent {
    /// 1-D: Q-Formers between the grid and a line of tokens.
    Sequence {
        /// Number of latent tokens; a power of two for multi-level queries.
        num_tokens: i64,
        /// Initial queries of the encoder.
        query_init: QueryInit,
    },
    /// 2-D: transformers on the grid; codes in raster order.
    Grid {
        /// Type of the layers.
        layers: GridLayers,
    },
}

/// Initial queries of the 1-D encoder (official keys `multi_level_query_init`,
/// `learnable_1d_query_init`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryInit {
    /// Averages of the grid at growing resolution (paper, supplement A).
    MultiLevel,
    /// The global average, repeated.
    Mean,
    /// Learned vectors.
    Learned,
}

/// The layers of a 2-D tokenizer (official key `transformer_layer_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GridLayers {
    /// Self-attention and MLP; positions added once.
    Standard,
    /// Q-Former layers whose memory is their own input (S-S 2-D).
    Qformer,
}

/// The convolutional encoder and decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CnnConfig {
    /// Channels of a multiplier of 1; a multiple of the norm groups.
    pub channels: i64,
    /// Groups of every group norm: 32 in all releases. A norm that takes each channel for itself
    /// also takes away each channel's mean over the image, brightness with it, so narrow networks
    /// want fewer.
    #[serde(default = "released_norm_groups")]
    pub norm_groups: i64,
    /// Channel multiplier of each encoder level, finest first; each level but the last halves the
    /// side.
    pub encoder_multipliers: Vec<i64>,
    /// Channel multiplier of each decoder level, finest first.
    pub decoder_multipliers: Vec<i64>,
    /// Residual blocks a level in the encoder; the decoder has one more.
    pub res_blocks: i64,
    /// Channels between CNN and quantizer or transformer.
    pub z_channels: i64,
    /// Attention at the coarsest level (LlamaGen).
    pub attention: bool,
    /// Adaptive group norm in the decoder, styled by its input (GigaTok).
    pub adaptive_norm: bool,
    /// Upsampling of the decoder, by 2.
    pub upsample: Upsample,
    /// Pixels a side that the first convolution takes as one position, and the last gives back; 1
    /// in every released model. At 2 the costly level at full resolution falls away, for training
    /// on small machines.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub stem: i64,
    /// Pass what was computed as channels, by depth-to-space and for `stem`, through linear
    /// interpolation's filter of its factor (2: ¼ ½ ¼), which is zero at the very frequencies
    /// of a checked pattern, so that no training makes one (Sugawara et al., arXiv 1806.02658). No
    /// variables of its own; in no released model.
    #[serde(default, skip_serializing_if = "is_false")]
    pub smooth: bool,
}

fn is_false(yes: &bool) -> bool {
    !yes
}

fn released_norm_groups() -> i64 {
    32
}

fn one() -> i64 {
    1
}

fn is_one(stem: &i64) -> bool {
    *stem == 1
}

impl CnnConfig {
    /// Pixels a side of one latent position.
    pub fn patch(&self) -> i64 {
        self.stem << (self.encoder_multipliers.len() - 1)
    }

    /// Whether the decoder computes several pixels as channels of one place.
    pub fn has_sub_pixels(&self) -> bool {
        self.stem > 1 || (self.upsample == Upsample::DepthToSpace && self.decoder_multipliers.len() > 1)
    }
}

/// Upsampling of the decoder, by 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upsample {
    /// 3×3 convolution to four times the channels, then depth to space (GigaTok).
    DepthToSpace,
    /// Nearest neighbour, then a 3×3 convolution (LlamaGen).
    Nearest,
}

/// A frozen vision network whose features join the CNN encoder's output: codes then hold what such
/// a network sees, which is easier to predict and costs no training (after VFMTok, arXiv
/// 2507.08441, which has it in place of the CNN). No released model has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// The EfficientNet-Lite.
    pub size: EfficientNetSize,
    /// Its block, from 0, whose output is taken: 4 has stride 8, 10 stride 16.
    pub block: usize,
    /// Images are enlarged bilinearly by this factor first.
    pub upsample: i64,
}

impl VisionConfig {
    /// FLOPs of an image of side `image_size`.
    pub fn flops(self, image_size: i64) -> f64 {
        self.size.cost(image_size * self.upsample, self.block).0
    }
}

/// Semantic regularisation: which features are projected, and onto what width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alignment {
    /// Features that are projected.
    pub layer: AlignedLayer,
    /// Width of the teacher's features.
    pub width: i64,
}

/// The features that semantic regularisation projects: a number, or `cnn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum AlignedLayer {
    /// The output of a decoder layer, counted from 1 (official `distill_depth`, 3 in all releases).
    Decoder(i64),
    /// Another part of the network.
    Named(AlignedPart),
}

/// Written by hand for errors that list the choices.
impl<'de> Deserialize<'de> for AlignedLayer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = AlignedLayer;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("the number of a decoder layer, or cnn")
            }

            fn visit_i64<E: serde::de::Error>(self, layer: i64) -> std::result::Result<AlignedLayer, E> {
                Ok(AlignedLayer::Decoder(layer))
            }

            fn visit_u64<E: serde::de::Error>(self, layer: u64) -> std::result::Result<AlignedLayer, E> {
                i64::try_from(layer).map(AlignedLayer::Decoder).map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> std::result::Result<AlignedLayer, E> {
                AlignedPart::deserialize(name.into_deserializer()).map(AlignedLayer::Named)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A part of the network with features on the image grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlignedPart {
    /// The CNN encoder's output (official `encoder_2d_distill`; no release).
    Cnn,
}

/// LlamaGen's VQGAN (arXiv 2406.06525).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlamaGenVqConfig {
    /// Side of the square images the codes are meant for; the network takes any multiple of the
    /// patch.
    pub image_size: i64,
    /// The two CNNs.
    pub cnn: CnnConfig,
    /// The codebook.
    pub quantizer: QuantizerConfig,
}

impl Alignment {
    /// The decoder layer that is projected, if it is one.
    pub fn decoder_layer(self) -> Option<i64> {
        match self.layer {
            AlignedLayer::Decoder(layer) => Some(layer),
            AlignedLayer::Named(AlignedPart::Cnn) => None,
        }
    }
}

impl TokenizerConfig {
    /// Side of the square images, pixels.
    pub fn image_size(&self) -> i64 {
        match self {
            TokenizerConfig::Gigatok(c) => c.image_size,
            TokenizerConfig::LlamagenVq(c) => c.image_size,
        }
    }

    /// The CNN part.
    pub fn cnn(&self) -> &CnnConfig {
        match self {
            TokenizerConfig::Gigatok(c) => &c.cnn,
            TokenizerConfig::LlamagenVq(c) => &c.cnn,
        }
    }

    /// The quantizer part.
    pub fn quantizer(&self) -> &QuantizerConfig {
        match self {
            TokenizerConfig::Gigatok(c) => &c.quantizer,
            TokenizerConfig::LlamagenVq(c) => &c.quantizer,
        }
    }

    /// Refuses what could not be built.
    pub fn check(&self) -> Result<()> {
        let cnn = self.cnn();
        let fail = |message: String| Err(Error::Settings(message));
        if cnn.encoder_multipliers.is_empty()
            || cnn.decoder_multipliers.len() != cnn.encoder_multipliers.len()
        {
            return fail(
                "encoder_multipliers and decoder_multipliers must be of one length, at least 1".into(),
            );
        }
        let multipliers = cnn.encoder_multipliers.iter().chain(&cnn.decoder_multipliers);
        self.check_bounds()?;
        let groups = cnn.norm_groups;
        if groups < 1
            || cnn.channels < 1
            || multipliers.clone().any(|m| *m < 1 || cnn.channels * m % groups != 0)
        {
            return fail(format!(
                "channels × multiplier must be a positive multiple of norm_groups {groups}; channels is {}",
                cnn.channels
            ));
        }
        if cnn.res_blocks < 1 || cnn.z_channels < 1 || cnn.stem < 1 {
            return fail("res_blocks, z_channels and stem must be at least 1".into());
        }
        if cnn.smooth && !cnn.has_sub_pixels() {
            return fail(
                "cnn.smooth: no pixels are computed as channels; it goes with depth_to_space or a stem"
                    .into(),
            );
        }
        let patch = cnn.patch();
        if self.image_size() <= 0 || self.image_size() % patch != 0 {
            return fail(format!("image_size {} is not a multiple of the patch {patch}", self.image_size()));
        }
        let quantizer = self.quantizer().settings();
        if quantizer.codebook_size() < 1 || quantizer.code_dim() < 1 {
            return fail("codebook_size and code_dim must be at least 1".into());
        }
        quantizer.check()?;
        if let TokenizerConfig::Gigatok(c) = self {
            c.check()?;
        }
        Ok(())
    }

    /// Refuses sizes that no machine holds, with which later products would overflow.
    fn check_bounds(&self) -> Result<()> {
        let (cnn, quantizer) = (self.cnn(), self.quantizer().settings());
        let levels = cnn.encoder_multipliers.len() as i64;
        let multipliers = cnn.encoder_multipliers.iter().chain(&cnn.decoder_multipliers);
        let mut bounds = vec![
            ("image_size", self.image_size(), 1 << 16),
            ("the number of multipliers", levels, 16),
            ("a multiplier", multipliers.copied().max().unwrap_or(1), 1 << 12),
            ("cnn.channels", cnn.channels, 1 << 16),
            ("cnn.res_blocks", cnn.res_blocks, 10_000),
            ("cnn.z_channels", cnn.z_channels, 1 << 20),
            ("cnn.stem", cnn.stem, 1 << 12),
            ("quantizer.codebook_size", quantizer.codebook_size(), 1 << 28),
            ("quantizer.code_dim", quantizer.code_dim(), 1 << 20),
        ];
        if let TokenizerConfig::Gigatok(c) = self {
            let num_tokens = if let Latent::Sequence { num_tokens, .. } = c.latent { num_tokens } else { 1 };
            let sizes = [c.encoder.resolve(), c.decoder.resolve()];
            bounds.extend([
                ("latent.num_tokens", num_tokens, 1 << 24),
                ("a transformer's width", sizes[0].width.max(sizes[1].width), 1 << 20),
                ("a transformer's layers", sizes[0].layers.max(sizes[1].layers), 10_000),
                ("alignment.width", c.alignment.map_or(1, |a| a.width), 1 << 20),
            ]);
        }
        match bounds.iter().find(|(_, found, most)| found > most) {
            None => Ok(()),
            Some((key, found, most)) => {
                Err(Error::Settings(format!("{key} must be at most {most}, found {found}")))
            }
        }
    }
}

impl GigaTokConfig {
    /// Positions a side of the latent grid.
    pub fn grid(&self) -> i64 {
        self.image_size / self.cnn.patch()
    }

    /// Codes of one image.
    pub fn num_tokens(&self) -> i64 {
        match self.latent {
            Latent::Sequence { num_tokens, .. } => num_tokens,
            Latent::Grid { .. } => self.grid() * self.grid(),
        }
    }

    fn check(&self) -> Result<()> {
        for (which, size) in [("encoder", self.encoder.resolve()), ("decoder", self.decoder.resolve())] {
            let counts = [("width", size.width), ("layers", size.layers), ("heads", size.heads)];
            if let Some((key, found)) = counts.iter().find(|(_, n)| *n < 1) {
                return Err(Error::Settings(format!("{which}.{key} must be at least 1, found {found}")));
            }
            if size.width % size.heads != 0 {
                return Err(Error::Settings(format!(
                    "{which}: width {} is not a multiple of heads {}",
                    size.width, size.heads
                )));
            }
        }
        if let Some(vision) = self.vision {
            vision.size.check(&[vision.block], vision.upsample)?;
        }
        if let Some(Alignment { layer: AlignedLayer::Decoder(layer), .. }) = self.alignment
            && !(1..=self.decoder.resolve().layers).contains(&layer)
        {
            return Err(Error::Settings(format!("alignment.layer {layer} is not a decoder layer")));
        }
        if let Latent::Sequence { num_tokens, query_init: QueryInit::MultiLevel } = self.latent {
            crate::gigatok::query_init::kernels(self.grid(), num_tokens)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bounded_and_named() {
        let text = "{type: gigatok, image_size: 16, latent: {type: sequence, num_tokens: 16, query_init: multi_level}, \
             cnn: {channels: 32, encoder_multipliers: [1, 1, 1], decoder_multipliers: [1, 1, 1], res_blocks: 1, \
             z_channels: 32, attention: false, adaptive_norm: true, upsample: depth_to_space}, \
             encoder: {width: 32, layers: 1, heads: 2}, decoder: {width: 32, layers: 1, heads: 2}, \
             quantizer: {codebook_size: 64, code_dim: 8, l2_normalize: true, gradient: rotation, commitment: 0.25}}";
        let read = |text: &str| {
            let document = base::config::Document::parse("test", text).unwrap();
            TokenizerConfig::from_document(&document).map_err(|e| e.to_string())
        };
        read(text).unwrap();
        for (from, to, expected) in [
            ("image_size: 16", "image_size: 1000000000000", "image_size must be at most 65536"),
            ("channels: 32", "channels: 9223372036854775807", "cnn.channels must be at most"),
            ("[1, 1, 1], d", "[1, 1, 4611686018427387904], d", "a multiplier must be at most"),
            ("num_tokens: 16", "num_tokens: 9223372036854775807", "latent.num_tokens must be at most"),
            (
                "codebook_size: 64",
                "codebook_size: 9223372036854775807",
                "quantizer.codebook_size must be at most",
            ),
            (
                "encoder: {width: 32, layers: 1",
                "encoder: {width: 32, layers: 0",
                "encoder.layers must be at least 1",
            ),
        ] {
            let error = read(&text.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
