//! CLIP (Radford et al., arXiv 2103.00020) with a ViT: images and texts on one sphere.
//!
//! Weights: `openai/clip-vit-{base-patch32,large-patch14,large-patch14-336}` in Hugging Face's
//! layout (`vision_model.*`, `text_model.*`, `visual_projection.weight`, `text_projection.weight`,
//! `logit_scale`), in any container this program reads. OpenAI's own TorchScript archives are not
//! read.
//!
//! B batch, L tokens, D width, P projection, N patches

mod config;
mod encoder;
mod extractor;
mod tokenizer;

use base::{Build, ImagesU8, Init, Scope, Vars};
use nn::{Conv2d, LayerNorm, Linear, l2_normalize};
use tch::{Device, Kind, Tensor};
use weights::KeyMap;

pub use config::{ClipConfig, ClipModel, TowerConfig};
pub use extractor::ClipExtractor;
pub use tokenizer::ClipTokenizer;

use self::encoder::{EPS, Encoder, linear};
use crate::random::fan_in;
use crate::resize::{pillow_centre_square, pillow_short_side};
use crate::source::{Provenance, fill};
use crate::{Error, InputPath, Result, WeightSource};

/// Image → feature.
#[derive(Debug)]
struct VisionTower {
    class: Tensor, // (D)
    patches: Conv2d,
    positions: Tensor, // (1 + N, D)
    norm_before: LayerNorm,
    encoder: Encoder,
    norm_after: LayerNorm,
}

impl VisionTower {
    fn new(p: &Scope, config: &ClipConfig) -> Self {
        let p = p / "vision_model";
        let width = config.vision.width;
        let small = Init::Normal { std: 0.02 };
        let embeddings = &p / "embeddings";
        let side = config.image_size / config.patch;
        let convolution = &embeddings / "patch_embedding";
        VisionTower {
            class: embeddings.var("class_embedding", &[width], small),
            patches: Conv2d::without_bias(&convolution, 3, width, config.patch, small)
                .with_stride(config.patch, 0),
            positions: (&embeddings / "position_embedding").var("weight", &[1 + side * side, width], small),
            norm_before: LayerNorm::new(&(&p / "pre_layrnorm"), width, EPS), // so it is spelled
            encoder: Encoder::new(&p, config.vision, false),
            norm_after: LayerNorm::new(&(&p / "post_layernorm"), width, EPS),
        }
    }

    /// (B, 3, S, S) → (B, D): the class token.
    fn forward(&self, x: &Tensor) -> Tensor {
        let b = x.size()[0];
        let patches = self.patches.forward(x).flatten(2, 3).transpose(1, 2); // (B, N, D)
        let class = self.class.view([1, 1, -1]).expand([b, -1, -1], false);
        let x = Tensor::cat(&[class, patches], 1) + &self.positions;
        let x = self.encoder.forward(&self.norm_before.forward(&x));
        self.norm_after.forward(&x.select(1, 0))
    }
}

/// Tokens → feature.
#[derive(Debug)]
struct TextTower {
    tokens: Tensor,    // (vocabulary, D)
    positions: Tensor, // (L, D)
    encoder: Encoder,
    norm: LayerNorm,
    end_of_text: i64,
}

impl TextTower {
    fn new(p: &Scope, config: &ClipConfig) -> Self {
        let p = p / "text_model";
        let width = config.text.width;
        let embedding = |name: &str, rows| {
            (&p / "embeddings" / name).var("weight", &[rows, width], Init::Normal { std: 0.02 })
        };
        TextTower {
            tokens: embedding("token_embedding", config.vocab_size),
            positions: embedding("position_embedding", config.context),
            encoder: Encoder::new(&p, config.text, true),
            norm: LayerNorm::new(&(&p / "final_layer_norm"), width, EPS),
            end_of_text: config.end_of_text,
        }
    }

    /// (B, L) int64 → (B, D): the first end-of-text token, which has seen all before it.
    fn forward(&self, tokens: &Tensor) -> Tensor {
        let l = tokens.size()[1];
        let x = Tensor::embedding(&self.tokens, tokens, -1, false, false) + self.positions.narrow(0, 0, l);
        let x = self.norm.forward(&self.encoder.forward(&x));
        let end = tokens.eq(self.end_of_text).to_kind(Kind::Int64).argmax(1, true); // (B, 1)
        let index = end.unsqueeze(-1).expand([-1, 1, x.size()[2]], false);
        x.gather(1, &index, false).squeeze_dim(1)
    }
}

/// Both towers and their projections.
#[derive(Debug)]
pub struct Clip {
    config: ClipConfig,
    vision: VisionTower,
    text: TextTower,
    visual_projection: Linear,
    text_projection: Linear,
    logit_scale: Tensor, // scalar
    device: Device,
}

impl Clip {
    /// The input paths of its image tower; the first is CLIP's own.
    pub const INPUT_PATHS: [InputPath; 2] = [InputPath::Clip, InputPath::Cmmd];

    /// Variables under Hugging Face's names.
    pub fn new(p: &Scope, config: &ClipConfig) -> Self {
        let projection = |name: &str, width| linear(p, name, width, config.projection, false);
        Clip {
            config: *config,
            vision: VisionTower::new(p, config),
            text: TextTower::new(p, config),
            visual_projection: projection("visual_projection", config.vision.width),
            text_projection: projection("text_projection", config.text.width),
            logit_scale: p.var("logit_scale", &[], Init::Const((1.0f64 / 0.07).ln())),
            device: p.vars().device(),
        }
    }

    /// Fills both towers from a weight file, or at random, in fp32.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or its names or shapes are not exactly those of
    /// `config`.
    pub fn open(from: &WeightSource, config: &ClipConfig, device: Device) -> Result<Self> {
        Ok(Self::open_named("CLIP", from, config, device)?.0)
    }

    fn open_named(
        name: &str,
        from: &WeightSource,
        config: &ClipConfig,
        device: Device,
    ) -> Result<(Self, Provenance)> {
        let vars = Vars::new(device, Kind::Float, Build::Empty);
        let clip = Self::new(&vars.root(), config);
        let provenance = fill(name, name, &vars, from, &key_map(), random_range)?;
        Ok((clip, provenance))
    }

    /// 8-bit images of any size → (B, 3, S, S) fp32, normalised as CLIP was trained, on the
    /// network's device.
    ///
    /// # Errors
    /// Returns an error if the network has no such input path, or the images are empty.
    pub fn prepare(&self, images: &ImagesU8, path: InputPath) -> Result<Tensor> {
        let side = self.config.image_size;
        let square = match path.among(&Self::INPUT_PATHS)? {
            InputPath::Cmmd => pillow_centre_square(images, side)?,
            _ => pillow_short_side(images, side)?,
        };
        let colour = |c: [f32; 3]| Tensor::from_slice(&c).view([1, 3, 1, 1]).to_device(self.device);
        let x = square.tensor().to_device(self.device).to_kind(Kind::Float) / 255.0;
        Ok((x - colour(MEAN)) / colour(STD))
    }

    /// (B, 3, S, S) as [`Clip::prepare`] makes it → (B, P) of length 1.
    ///
    /// # Errors
    /// Returns an error if the images have another size.
    pub fn image_features(&self, x: &Tensor) -> Result<Tensor> {
        let side = self.config.image_size;
        if x.size().get(1..) != Some([3, side, side].as_slice()) {
            return Err(Error::Input {
                what: "images for CLIP",
                expected: format!("(B, 3, {side}, {side})"),
                found: format!("{:?}", x.size()),
            });
        }
        Ok(tch::no_grad(|| l2_normalize(&self.visual_projection.forward(&self.vision.forward(x)), -1)))
    }

    /// (B, L) int64, L at most 77, as [`ClipTokenizer::encode`] makes them → (B, P) of length 1.
    ///
    /// # Errors
    /// Returns an error if the shapes differ, a token is not in the vocabulary, or a text has no
    /// end token.
    pub fn text_features(&self, tokens: &Tensor) -> Result<Tensor> {
        let tokens = &self.checked(tokens)?;
        Ok(tch::no_grad(|| l2_normalize(&self.text_projection.forward(&self.text.forward(tokens)), -1)))
    }

    fn checked(&self, tokens: &Tensor) -> Result<Tensor> {
        let ClipConfig { context, vocab_size, end_of_text, .. } = self.config;
        let wrong = |found: String| Error::Input {
            what: "tokens for CLIP",
            expected: format!(
                "int64 (B, L), L at most {context}, each in 0..{vocab_size} and {end_of_text} in every row"
            ),
            found,
        };
        let size = tokens.size();
        let fits = size.len() == 2 && size[0] > 0 && (1..=context).contains(&size[1]);
        if !fits || tokens.kind() != Kind::Int64 {
            return Err(wrong(format!("{:?} {size:?}", tokens.kind())));
        }
        let (low, high) = (tokens.min().int64_value(&[]), tokens.max().int64_value(&[]));
        if low < 0 || high >= vocab_size {
            return Err(wrong(format!("tokens from {low} to {high}")));
        }
        let ends = tokens.eq(end_of_text).any_dim(1, false).all().int64_value(&[]) == 1;
        if !ends {
            return Err(wrong(format!("a row without {end_of_text}")));
        }
        Ok(tokens.to_device(self.device))
    }

    /// Factor of cosines in training.
    pub fn logit_scale(&self) -> f64 {
        self.logit_scale.exp().double_value(&[])
    }
}

const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

fn key_map() -> KeyMap {
    let because = "counts 0, 1, 2, …";
    KeyMap::identity()
        .drop("vision_model.embeddings.position_ids", because)
        .drop("text_model.embeddings.position_ids", because)
}

/// Range of random weights.
fn random_range(name: &str, shape: &[i64]) -> (f64, f64) {
    let symmetric = |bound: f64| (-bound, bound);
    match name {
        "logit_scale" => (4.6, 4.6),
        _ if name.ends_with("bias") => symmetric(0.1),
        _ if name.contains("norm") || name.contains("layrnorm") => (0.8, 1.2),
        _ if name.contains("patch_embedding") => symmetric((3.0 / fan_in(shape)).sqrt()),
        _ if name.contains("embedding") => symmetric(0.5),
        _ => symmetric((3.0 / fan_in(shape)).sqrt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_models_have_the_published_parameters() {
        let expected = [151_277_313, 427_616_513, 427_944_193];
        for (model, expected) in ClipModel::ALL.into_iter().zip(expected) {
            let vars = Vars::new(Device::Cpu, Kind::Float, Build::Meta);
            Clip::new(&vars.root(), &model.config());
            assert_eq!(vars.num_parameters(), expected, "{}", model.name());
        }
    }

    fn tiny() -> Clip {
        let tower = TowerConfig { width: 16, depth: 2, heads: 2 };
        let config = ClipConfig {
            vision: tower,
            image_size: 28,
            patch: 14,
            text: tower,
            vocab_size: 20,
            context: 8,
            end_of_text: 19,
            projection: 12,
        };
        Clip::open(&WeightSource::Random { seed: 2 }, &config, Device::Cpu).unwrap()
    }

    fn text(tokens: &[i64]) -> Tensor {
        Tensor::from_slice(tokens).view([1, -1])
    }

    fn near(a: &Tensor, b: &Tensor) -> bool {
        a.allclose(b, 1e-5, 1e-6, false)
    }

    #[test]
    fn features_have_length_one_and_rows_are_independent() {
        let clip = tiny();
        let bytes = (Tensor::rand([3, 3, 40, 33], (Kind::Float, Device::Cpu)) * 255.0).to_kind(Kind::Uint8);
        for path in Clip::INPUT_PATHS {
            let x = clip.prepare(&ImagesU8::new(bytes.shallow_clone()).unwrap(), path).unwrap();
            let all = clip.image_features(&x).unwrap();
            assert_eq!(all.size(), [3, 12]);
            assert!(near(
                &all.norm_scalaropt_dim(2.0, [1], false),
                &Tensor::ones([3], (Kind::Float, Device::Cpu))
            ));
            assert!(near(&clip.image_features(&x.narrow(0, 2, 1)).unwrap(), &all.narrow(0, 2, 1)));
        }
        let texts = Tensor::cat(&[text(&[18, 3, 4, 19, 0]), text(&[18, 5, 19, 0, 0])], 0);
        let all = clip.text_features(&texts).unwrap();
        assert!(near(
            &all.norm_scalaropt_dim(2.0, [1], false),
            &Tensor::ones([2], (Kind::Float, Device::Cpu))
        ));
        assert!(near(&clip.text_features(&texts.narrow(0, 1, 1)).unwrap(), &all.narrow(0, 1, 1)));
    }

    #[test]
    fn a_text_is_what_stands_before_its_first_end() {
        let clip = tiny();
        let short = clip.text_features(&text(&[18, 3, 4, 19])).unwrap();
        for padded in [[18, 3, 4, 19, 0, 0], [18, 3, 4, 19, 19, 19], [18, 3, 4, 19, 7, 2]] {
            assert!(near(&clip.text_features(&text(&padded)).unwrap(), &short), "{padded:?}");
        }
        assert!(!near(&clip.text_features(&text(&[18, 4, 3, 19])).unwrap(), &short), "order counts");
    }

    #[test]
    fn impossible_tokens_and_images_are_refused() {
        let clip = tiny();
        let error = |t: &Tensor| clip.text_features(t).unwrap_err().to_string();
        assert!(error(&text(&[18, 20, 19])).contains("from 18 to 20"));
        assert!(error(&text(&[18, 3])).contains("without 19"));
        assert!(error(&text(&[1, 2, 3, 4, 5, 6, 7, 8, 19])).contains("[1, 9]"));
        let x = Tensor::zeros([1, 3, 14, 28], (Kind::Float, Device::Cpu));
        assert!(clip.image_features(&x).unwrap_err().to_string().contains("(B, 3, 28, 28)"));
    }
}
