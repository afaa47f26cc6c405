//! Texts as conditions in training: captions → features, by a frozen encoder, from stored
//! features, or by an encoder that is trained jointly.

mod captions;
mod recipe;

use std::path::{Path, PathBuf};

use ar_model::Conditioning;
use backbones::text_encoder::{
    EncoderFiles, T5Config, T5Encoder, TEXT_FILE, TEXT_FOLDER, TEXT_PREFIX, TextDescription, TextEncoder,
    TextFeatures, TextTokenizer, WhichEncoder, learn_tokenizer, left_pad, prepare,
};
use base::config::to_yaml;
use base::{TensorKind, Vars};
use data::codes::CodeBatch;
use data::text_features::TextFeatureShards;
use tch::{Kind, Tensor};

pub use captions::first_sentence;
pub use recipe::{EncoderRecipe, TextRecipe};

use self::captions::Captions;
use self::recipe::joint_config;
use super::codes::CodeStream;
use crate::files::{to_json, write_atomically};
use crate::{Error, Result};

/// The text side of a transformer in training.
#[derive(Debug)]
pub(crate) struct Text {
    captions: Captions,
    encoder: Encoder,
    clean: bool,
    length: i64,
}

#[derive(Debug)]
enum Encoder {
    Frozen { encoder: TextEncoder, folder: PathBuf },
    Stored { shards: Vec<TextFeatureShards>, vars: Vars },
    Joint { tokenizer: TextTokenizer, json: String, encoder: Box<T5Encoder>, vars: Vars },
}

/// Inputs of the condition of a batch, before the graph.
#[derive(Debug)]
pub(crate) enum TextInputs {
    /// From a frozen encoder.
    Features(TextFeatures),
    /// For a jointly trained encoder: (B, T) ids and mask.
    Tokens { ids: Tensor, mask: Tensor },
}

impl Text {
    /// Opens or builds the encoder; a jointly trained one adds its variables to the transformer's
    /// `vars`.
    pub fn new(
        recipe: &TextRecipe,
        (length, width): (i64, i64),
        (vars, compute): (&Vars, Kind),
        train: &CodeStream,
        seed: u64,
    ) -> Result<Self> {
        recipe.check()?;
        let captions = Captions::new(recipe, train.classes(), seed);
        let encoder = match &recipe.encoder {
            EncoderRecipe::Frozen { folder, precision } => {
                let folder = folder.clone().ok_or(Error::NoWeights {
                    network: "a frozen text encoder, such as google/flan-t5-xl",
                    key: "text.encoder.folder",
                })?;
                let files = EncoderFiles::in_folder(&folder);
                let encoder =
                    TextEncoder::open(&files, length, recipe.clean, vars.device(), precision.kind())?;
                check_width(encoder.width(), width, &folder)?;
                Encoder::Frozen { encoder, folder }
            }
            EncoderRecipe::Stored { features } => {
                let shards = stored(features, recipe.clean, (length, width))?;
                Encoder::Stored { shards, vars: vars.clone() }
            }
            joint @ EncoderRecipe::Joint { vocab_size, .. } => {
                let mut all = train.captions()?;
                all.extend(captions.of_classes());
                let all = all.iter().map(|c| prepare(c, recipe.clean)).collect::<Result<Vec<_>, _>>()?;
                let json = learn_tokenizer(all.into_iter(), *vocab_size)?;
                let tokenizer = TextTokenizer::parse(Path::new("the learned tokenizer"), &json, length)?;
                let config = joint_config(joint, tokenizer.vocab_size(), width).expect("a joint encoder");
                config.check()?;
                let mut encoder = T5Encoder::new(&(&vars.root() / TEXT_PREFIX), &config);
                encoder.set_compute(compute);
                Encoder::Joint { tokenizer, json, encoder: Box::new(encoder), vars: vars.clone() }
            }
        };
        Ok(Text { captions, encoder, clean: recipe.clean, length })
    }

    /// `n` texts for samples during training: captions of the data, or made from its classes.
    pub fn examples(&self, train: &CodeStream, n: usize) -> Result<Vec<String>> {
        let mut known = train.some_captions(n)?;
        if known.is_empty() {
            known = self.captions.of_classes();
        }
        Ok((0..n).filter_map(|i| known.get(i * known.len() / n).cloned()).collect())
    }

    /// The texts of a batch, tokenized or encoded.
    pub fn prepare(&self, batch: &CodeBatch) -> Result<TextInputs> {
        self.encode(&self.captions.of(batch)?)
    }

    /// Texts, tokenized or encoded.
    pub fn encode(&self, captions: &[String]) -> Result<TextInputs> {
        Ok(match &self.encoder {
            Encoder::Frozen { encoder, .. } => TextInputs::Features(encoder.encode(captions)?),
            Encoder::Stored { shards, vars } => {
                let texts = captions.iter().map(|c| find(shards, c)).collect::<Result<Vec<_>>>()?;
                let found = TextFeatures::from_texts(&texts, self.length);
                let device = vars.device();
                let (features, mask) = (found.features.to_device(device), found.mask.to_device(device));
                TextInputs::Features(TextFeatures { features, mask })
            }
            Encoder::Joint { tokenizer, vars, .. } => {
                let texts = captions.iter().map(|c| prepare(c, self.clean)).collect::<Result<Vec<_>, _>>()?;
                let tokens = tokenizer.encode(&texts)?;
                let device = vars.device();
                TextInputs::Tokens { ids: tokens.ids.to_device(device), mask: tokens.mask.to_device(device) }
            }
        })
    }

    /// The conditions of a batch, with the encoder's graph if it is trained.
    pub fn condition(&self, inputs: &TextInputs) -> Conditioning {
        let TextFeatures { features, mask } = match (inputs, &self.encoder) {
            (TextInputs::Tokens { ids, mask }, Encoder::Joint { encoder, .. }) => {
                left_pad(&encoder.forward(ids, mask), mask)
            }
            (TextInputs::Features(f), _) => {
                TextFeatures { features: f.features.shallow_clone(), mask: f.mask.shallow_clone() }
            }
            (TextInputs::Tokens { .. }, _) => unreachable!("only a joint encoder takes tokens"),
        };
        Conditioning::Text { features, mask }
    }

    /// Writes the description of the encoder that sampling needs into the model's directory.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let encoder = match &self.encoder {
            Encoder::Frozen { encoder, folder } => WhichEncoder::Outside {
                fingerprint: encoder.fingerprint().to_owned(),
                folder: Some(folder.clone()),
            },
            Encoder::Stored { shards, .. } => {
                let fingerprint = shards[0].index().encoder.fingerprint.clone();
                WhichEncoder::Outside { fingerprint, folder: None }
            }
            Encoder::Joint { json, encoder, .. } => {
                let folder = dir.join(TEXT_FOLDER);
                std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
                write_atomically(&folder.join("tokenizer.json"), json.as_bytes())?;
                write_atomically(&folder.join("config.json"), config_json(encoder.config()).as_bytes())?;
                WhichEncoder::Inside
            }
        };
        let description = TextDescription { clean: self.clean, encoder };
        write_atomically(&dir.join(TEXT_FILE), to_yaml(&description)?.as_bytes())
    }

    /// The encoder in one line.
    pub fn describe(&self) -> String {
        match &self.encoder {
            Encoder::Frozen { folder, .. } => format!("text encoder {}", folder.display()),
            Encoder::Stored { shards, .. } => {
                shards.iter().map(TextFeatureShards::describe).collect::<Vec<_>>().join(" + ")
            }
            Encoder::Joint { tokenizer, .. } => {
                format!("a jointly trained text encoder, {} tokens", tokenizer.vocab_size())
            }
        }
    }
}

fn config_json(config: &T5Config) -> String {
    let mut json = serde_json::to_value(config).expect("plain data");
    json["model_type"] = "t5".into();
    to_json(&json)
}

fn check_width(found: i64, expected: i64, folder: &Path) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Recipe(format!(
        "`{}` makes features of width {found}, and `model.conditioning.feature_width` is {expected}",
        folder.display()
    )))
}

/// Opens stored features and checks that they come from one encoder and fit the model.
fn stored(folders: &[PathBuf], clean: bool, (length, width): (i64, i64)) -> Result<Vec<TextFeatureShards>> {
    let shards = folders.iter().map(|f| TextFeatureShards::open(f)).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = shards.first() else {
        return Err(Error::Recipe(
            "text.encoder.features names no folder; give `--text-features DIR`".into(),
        ));
    };
    for (set, folder) in shards.iter().zip(folders) {
        let id = &set.index().encoder;
        check_width(id.width, width, folder)?;
        let wrong = |part: &str, found: String, expected: String| {
            Err(Error::Recipe(format!("`{}`: {part} {found}, expected {expected}", folder.display())))
        };
        if id.fingerprint != first.index().encoder.fingerprint {
            let expected = first.index().encoder.fingerprint.clone();
            return wrong("features of text encoder", id.fingerprint.clone(), expected);
        }
        if id.clean != clean {
            return wrong("captions cleaned:", id.clean.to_string(), format!("{clean} as text.clean says"));
        }
        if id.length != length {
            return wrong("captions of at most", id.length.to_string(), format!("{length} tokens"));
        }
    }
    Ok(shards)
}

fn find(shards: &[TextFeatureShards], caption: &str) -> Result<Tensor> {
    for set in shards {
        if let Some(features) = set.get(caption)? {
            return Ok(features);
        }
    }
    let sets = shards.iter().map(TextFeatureShards::describe).collect::<Vec<_>>().join(", ");
    Err(Error::NoFeatures { caption: caption.to_owned(), sets })
}
