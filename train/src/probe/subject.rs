//! Subject of a probe: a model and a layer of it.

use ar_model::{AutoregressiveModel, Conditioning, ConditioningConfig, PositionConfig};
use base::{ImagesU8, Mode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tokenizer::{CodeLayout, Model, Tokenizer};

use crate::{Error, Result};

/// Layer of a tokenizer whose features are probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerPlace {
    /// The encoder's output after its final norm.
    Encoder,
    /// The encoder's output after its projection, before the one to the codes (upstream's
    /// `--fix-dim`; 1-D only).
    Projection,
    /// The decoder transformer's tokens at the depth that training aligns to a teacher (1-D only).
    Decoder,
}

/// Normalisation of each position's features before the mean over positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureNorm {
    /// No normalisation.
    None,
    /// Layer norm without an affine map, as in iGPT's probes.
    Ln,
}

/// A frozen model and a layer of it: images → one feature vector each.
pub struct Subject {
    tokenizer: tokenizer::Loaded,
    part: Part,
    norm: FeatureNorm,
}

enum Part {
    Tokenizer(TokenizerPlace),
    Transformer { model: Box<ar_model::Loaded>, layer: usize, dropout: bool },
}

/// Identity of a subject: equal identities have equal features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectId {
    /// The layer as text.
    pub place: String,
    /// Normalisation of the features.
    pub feature_norm: FeatureNorm,
    /// Dtype of weights and activations.
    pub precision: String,
    /// Fingerprint and configuration of the tokenizer.
    pub tokenizer: Value,
    /// The same of the transformer, if it is probed.
    pub transformer: Option<Value>,
}

impl Subject {
    /// A layer of a tokenizer.
    ///
    /// # Errors
    /// Returns an error if the tokenizer does not have it.
    pub fn tokenizer(tokenizer: tokenizer::Loaded, place: TokenizerPlace, norm: FeatureNorm) -> Result<Self> {
        let fail = |message: &str| Err(Error::Recipe(message.into()));
        let sequence = matches!(tokenizer.model.spec().layout, CodeLayout::Sequence { .. });
        match place {
            TokenizerPlace::Projection | TokenizerPlace::Decoder if !sequence => {
                return fail("only the encoder's output of a 2-D tokenizer can be probed");
            }
            TokenizerPlace::Decoder if aligned_layer(&tokenizer).is_none() => {
                return fail(
                    "the tokenizer's decoder was not aligned to a teacher (its config has no `alignment`), so \
                     there is no depth to probe",
                );
            }
            _ => {}
        }
        Ok(Subject { tokenizer, part: Part::Tokenizer(place), norm })
    }

    /// A transformer after `layer` blocks (default: half of them), with or without dropout on
    /// training images.
    ///
    /// # Errors
    /// Returns an error if the transformer has fewer layers, is not class-conditional, or the
    /// tokenizer makes other codes.
    pub fn transformer(
        model: ar_model::Loaded,
        tokenizer: tokenizer::Loaded,
        layer: Option<usize>,
        dropout: bool,
        norm: FeatureNorm,
    ) -> Result<Self> {
        let fail = |message: String| Err(Error::Recipe(message));
        let config = &model.config;
        let layers = config.layers as usize;
        let layer = layer.unwrap_or((layers / 2).max(1));
        if !(1..=layers).contains(&layer) {
            return fail(format!("`--layer {layer}`: the transformer has layers 1 to {layers}"));
        }
        if !matches!(config.conditioning, ConditioningConfig::Class { .. }) {
            return fail("the probe's condition is the null class; this transformer has no classes".into());
        }
        let spec = tokenizer.model.spec();
        let (needs, makes) = ((config.num_tokens, config.vocab_size), (spec.num_tokens, spec.codebook_size));
        if needs != makes {
            return fail(format!(
                "the transformer models {} codes of {}, the tokenizer makes {} of {}",
                needs.0, needs.1, makes.0, makes.1
            ));
        }
        let part = Part::Transformer { model: Box::new(model), layer, dropout };
        Ok(Subject { tokenizer, part, norm })
    }

    /// Side of its input images, pixels.
    pub fn image_size(&self) -> u32 {
        self.tokenizer.model.spec().image_size as u32
    }

    /// Whether features of training images are random.
    pub fn is_random(&self) -> bool {
        let Part::Transformer { model, dropout: true, .. } = &self.part else { return false };
        let rates = &model.config.dropout;
        [rates.token, rates.residual, rates.feed_forward, rates.drop_path].iter().any(|rate| *rate > 0.0)
    }

    /// Differences from GigaTok's probe of a transformer.
    pub(crate) fn differences(&self) -> Vec<String> {
        let mut found = vec![];
        match &self.part {
            Part::Transformer { model, layer, dropout, .. } => {
                if model.config.position != PositionConfig::Learned {
                    found.push("a transformer over 2-D codes".into());
                }
                if *layer != model.config.layers as usize / 2 {
                    found.push(format!("features: {}", self.place()));
                }
                if !dropout {
                    found.push("no dropout on training images".into());
                }
            }
            Part::Tokenizer(_) => found.push(format!("features: {}", self.place())),
        }
        if self.norm != FeatureNorm::None {
            found.push("layer norm on the features".into());
        }
        found
    }

    /// The layer as text.
    pub fn place(&self) -> String {
        match &self.part {
            Part::Tokenizer(TokenizerPlace::Encoder) => "tokenizer, encoder output".into(),
            Part::Tokenizer(TokenizerPlace::Projection) => "tokenizer, encoder output projection".into(),
            Part::Tokenizer(TokenizerPlace::Decoder) => {
                format!("tokenizer, decoder layer {}", aligned_layer(&self.tokenizer).unwrap_or_default())
            }
            Part::Transformer { model, layer, .. } => {
                format!("transformer, layer {layer} of {}", model.config.layers)
            }
        }
    }

    /// Identity of the features. Reads the weight files.
    ///
    /// # Errors
    /// Returns an error if a weight file cannot be read.
    pub fn id(&self) -> Result<SubjectId> {
        let tokenizer = &self.tokenizer;
        let transformer = match &self.part {
            Part::Tokenizer(_) => None,
            Part::Transformer { model, .. } => {
                Some(json!({ "fingerprint": model.fingerprint()?, "config": model.config }))
            }
        };
        Ok(SubjectId {
            place: self.place(),
            feature_norm: self.norm,
            precision: format!("{:?}", tokenizer.vars.kind()),
            tokenizer: json!({ "fingerprint": tokenizer.fingerprint()?, "config": tokenizer.config }),
            transformer,
        })
    }

    /// Images (B, 3, H, W) → features (B, D) fp32, the mean over all positions. In training mode,
    /// with dropout if the subject has it, from libtorch's global generator.
    ///
    /// # Errors
    /// Returns an error if the images do not have the tokenizer's size.
    pub fn features(&self, images: &ImagesU8, mode: Mode) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let (tokenizer, side) = (&self.tokenizer, i64::from(self.image_size()));
        let device = tokenizer.vars.device();
        if images.tensor().size()[2..] != [side, side] {
            let found = images.tensor().size();
            return Err(Error::Recipe(format!("the images are {found:?}, expected (B, 3, {side}, {side})")));
        }
        let images = ImagesU8::new(images.tensor().to_device(device)).map_err(tokenizer::Error::from)?;
        let positions = match &self.part {
            Part::Tokenizer(place) => of_tokenizer(tokenizer, *place, &images)?,
            Part::Transformer { model, layer, dropout } => {
                let codes = tokenizer.model.encode(&images.to_float())?.into_tensor();
                let like = Conditioning::Class(Tensor::zeros([codes.size()[0]], (Kind::Int64, device)));
                let null = model.model.null_conditioning(&like);
                model.model.check_conditioning(&null)?;
                let mode = if *dropout { mode } else { Mode::Eval };
                model.model.hidden(&null, &codes, *layer, mode) // (B, 1 + N - 1, D)
            }
        };
        let positions = positions.to_kind(Kind::Float);
        let positions = match self.norm {
            FeatureNorm::None => positions,
            FeatureNorm::Ln => {
                let width = positions.size()[2];
                positions.layer_norm::<Tensor>([width], None, None, 1e-5, false)
            }
        };
        Ok(positions.mean_dim([1i64].as_slice(), false, Kind::Float))
    }
}

fn aligned_layer(tokenizer: &tokenizer::Loaded) -> Option<i64> {
    match &tokenizer.config {
        tokenizer::TokenizerConfig::Gigatok(config) => {
            config.alignment.and_then(tokenizer::Alignment::decoder_layer)
        }
        tokenizer::TokenizerConfig::LlamagenVq(_) => None,
    }
}

/// (B, positions, D).
fn of_tokenizer(tokenizer: &tokenizer::Loaded, place: TokenizerPlace, images: &ImagesU8) -> Result<Tensor> {
    if place == TokenizerPlace::Decoder {
        let codes = tokenizer.model.encode(&images.to_float())?;
        let z = tokenizer.model.quantizer().lookup(&codes).to_kind(tokenizer.vars.kind());
        let Model::GigaTok(model) = &tokenizer.model else {
            unreachable!("`Subject::tokenizer` refuses others")
        };
        return Ok(model.grid_features(&z).1.expect("`Subject::tokenizer` made sure of the alignment"));
    }
    let latents = tokenizer.model.latents(&images.to_float().tensor().to_kind(tokenizer.vars.kind()));
    Ok(match place {
        TokenizerPlace::Projection => latents.projected,
        _ => latents.features,
    })
}
